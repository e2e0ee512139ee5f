"""A deployment on one machine: `up`, embedded services, the supervisor, `doctor`."""
