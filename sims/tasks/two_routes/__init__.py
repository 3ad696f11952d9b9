"""A point that may pass an obstacle on either side."""
