"""Files into Kafka, in event-time order."""
