"""Read-only queries on the store for the dashboard, the HTTP API and the doctor."""
