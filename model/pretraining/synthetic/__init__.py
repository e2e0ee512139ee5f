"""Synthetic shops: demand of every density, season and bucket width, from a seed."""
