"""Queries on the store for the dashboard, the HTTP API and the doctor.

They write nothing but requests for explanations.
"""
