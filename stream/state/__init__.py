"""The store of a deployment: its port, the Redis implementation, keys and stored formats."""
