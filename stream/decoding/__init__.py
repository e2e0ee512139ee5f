"""Bytes of a fetched batch to columns, or to a refusal with its reason."""
