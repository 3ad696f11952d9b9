"""Presets: differences from the dataclasses' defaults, in YAML."""
