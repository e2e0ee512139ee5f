"""One module a panel of the live page."""
