"""Process utilities shared by all roles: children, ports, signals, output, progress, stacks."""
