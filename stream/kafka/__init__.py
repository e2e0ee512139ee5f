"""Kafka input and output: the Faust app and its batch transport, admin client, producer."""
