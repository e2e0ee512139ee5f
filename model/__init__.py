"""The forecaster: pure numpy and torch; no broker, store, clock or environment in here."""
