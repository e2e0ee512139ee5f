"""The worker role: the composition root of the main path."""
