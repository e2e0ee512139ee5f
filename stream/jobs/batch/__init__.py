"""Training, forecasts and backtests on a file, without broker or store."""
