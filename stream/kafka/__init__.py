"""In and out of Kafka: the Faust app and its batches, admin and producer clients."""
