"""The worker role: builds and runs the path from input topics to forecasts."""
