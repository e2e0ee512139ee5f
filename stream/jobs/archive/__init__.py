"""Export of closed buckets to Parquet, and restore."""
