"""Typed configuration of every command, and the presets."""
