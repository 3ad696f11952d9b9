"""Whoever says what a robot should do."""
