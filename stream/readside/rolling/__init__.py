"""Sums over rolling windows of the closed buckets, and the series that move most."""
