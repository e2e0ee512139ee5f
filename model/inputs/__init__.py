"""Inputs of the network: carried statistics, calendar, plans, static features."""
