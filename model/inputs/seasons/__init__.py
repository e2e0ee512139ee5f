"""Seasons of demand: the calendar, its phases, and the profiles that every series carries."""
