"""Encodes the records of the output topics, and writes the read side; `kafka/producer.py` sends."""
