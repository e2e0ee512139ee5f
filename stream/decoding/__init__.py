"""Decodes fetched batches into columns; refuses unreadable records with a reason."""
