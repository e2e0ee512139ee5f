"""Stores models and the champion, and announces changes on the topic `models`."""
