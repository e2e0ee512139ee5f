"""One partition, pure: event time, deduplication, open buckets, what a flush stores."""
