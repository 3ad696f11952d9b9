"""Dataset formats: one file each, one line each in `registry.py`."""
