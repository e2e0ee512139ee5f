"""Pretraining of the network that ships with the product, on synthetic shops."""
