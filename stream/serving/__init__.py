"""Forecasts the horizon after each closed bucket, with the champion or the fallback.

One model step per closed bucket; forecasts to the read side and Kafka, features to Kafka.
"""
