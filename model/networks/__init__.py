"""Recurrent and attention networks behind one protocol."""
