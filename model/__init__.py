"""The forecaster: numpy and torch only, without broker, store, clock or environment."""
