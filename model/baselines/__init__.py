"""Forecasters without a network: seasonal naive and exponential smoothing."""
