"""Closed buckets computed from files, equal to those of the live path."""
