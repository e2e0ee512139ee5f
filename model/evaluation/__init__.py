"""Quality of forecasts: metrics, calibration, drift, backtest and promotion."""
