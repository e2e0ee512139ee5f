"""Panels of the page; each updates its sources to the newest snapshot."""
