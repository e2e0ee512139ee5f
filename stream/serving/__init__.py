"""One model step a closed bucket, and the way of the forecast out."""
