"""One partition, without I/O: watermark, deduplication, open buckets, closing, stored changes."""
