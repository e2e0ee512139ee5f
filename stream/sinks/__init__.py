"""Where results go: Kafka topics and the read side in Redis."""
