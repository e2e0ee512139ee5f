"""Files given to a job: orders, clicks, catalogue, plans, the shipped sample."""
