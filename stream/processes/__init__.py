"""Tools of every process: child processes, ports, signals, output, progress, stack reports."""
