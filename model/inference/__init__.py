"""Serving a network: states carried by series, stepped on the CPU or by CUDA graphs."""
