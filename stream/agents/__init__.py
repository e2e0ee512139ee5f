"""Thin Faust adapters: one function per input topic, no decisions."""
