"""Which models there are, which one serves, and how the others hear of it."""
