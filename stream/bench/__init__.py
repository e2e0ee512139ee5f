"""The measurements of the README, reproducible."""
