"""Training jobs: train, compare, publish and hand over models."""
