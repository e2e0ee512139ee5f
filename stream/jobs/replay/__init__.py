"""Replay of files to Kafka in event-time order."""
