"""What every request passes before its route: authentication, rates, sizes, times."""
