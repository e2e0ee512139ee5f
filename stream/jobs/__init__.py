"""Things that run beside the stream: replay, simulation, training, benchmarks."""
