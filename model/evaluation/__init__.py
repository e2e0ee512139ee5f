"""How good forecasts are: metrics, calibration, drift, backtest and promotion."""
