"""Training a network: windows, losses, several processes, checkpoints."""
