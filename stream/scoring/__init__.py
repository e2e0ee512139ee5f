"""Forecasts held against what happened: scores, calibration, drift."""
