"""The HTTP API under `/v1`, on top of the read side."""
