"""What any process of the product needs: children, ports, signals, progress, a last report."""
