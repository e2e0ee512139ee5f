"""Definitions of the features, shared by the live path, backfill and training."""
