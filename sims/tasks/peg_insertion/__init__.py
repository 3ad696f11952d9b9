"""A Panda inserts a square peg."""
