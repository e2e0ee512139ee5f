"""Ingest, state and serving: Kafka in, features and forecasts out. Import the modules, not this."""
