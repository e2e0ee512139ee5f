"""Closed buckets computed from files, as the live path would have stored them."""
