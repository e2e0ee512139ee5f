"""The read side: what the dashboard and the HTTP API see of the store."""
