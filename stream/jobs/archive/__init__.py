"""Closed buckets in Parquet, and back."""
