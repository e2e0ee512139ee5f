"""A simulated shop: its events to Kafka, its true demand to files."""
