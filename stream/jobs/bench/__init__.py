"""The measurements of the README, reproducible: `surgecast bench ingest|latency|inference`."""
