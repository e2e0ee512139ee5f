"""The partitions a worker owns: taking over, counting, flushing, roll-ups."""
