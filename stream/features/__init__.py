"""One definition of each feature, for the live path and for backfill."""
