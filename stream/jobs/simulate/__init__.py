"""A made-up shop into Kafka, its true demand beside it."""
