"""The HTTP API under `/v1`; it asks nothing but the read side."""
