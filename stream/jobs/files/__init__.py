"""Files given to a job: orders, clicks, catalog, plans, the shipped sample."""
