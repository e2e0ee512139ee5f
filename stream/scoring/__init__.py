"""Compares forecasts with the actuals: live scores, calibration, drift."""
