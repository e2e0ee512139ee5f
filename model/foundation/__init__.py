"""Foundation models as challengers in backtests and verdicts: pretrained elsewhere, run locally."""
