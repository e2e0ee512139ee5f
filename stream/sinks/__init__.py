"""Writes results: records of the output topics, and the read side in Redis."""
