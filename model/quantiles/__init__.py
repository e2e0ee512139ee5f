"""Quantiles of demand: bands, means, whole units, coherence with their sums."""
