"""Drives a worker's partitions: acquire, count batches, flush, close roll-ups."""
