"""The state port and its two stores: memory for tests, Redis for everything else."""
