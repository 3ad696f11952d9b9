"""Drivers: one folder or file each, one line each in `registry.py`."""
