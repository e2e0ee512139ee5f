"""Input files of jobs: orders, clicks, catalog, plans, the shipped sample."""
