"""A deployment on one machine: `up`, the embedded services, the supervisor, `doctor`."""
