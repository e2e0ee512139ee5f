"""Train, forecast and backtest on a file, without broker or store."""
