"""One model step a closed bucket; forecasts and features to store and topics."""
