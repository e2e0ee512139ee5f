"""Expected values of roll-ups as the sums of those of their series."""
