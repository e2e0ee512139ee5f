"""Drives a worker's partitions: acquire, count batches, flush, close roll-ups.

A batch whose input is ahead of the partition's others is parked.
"""
