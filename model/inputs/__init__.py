"""What the network is given of a series: carried statistics, calendar, plans, static features."""
