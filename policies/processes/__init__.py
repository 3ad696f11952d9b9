"""Generative processes: all the mathematics of one family in one file."""
