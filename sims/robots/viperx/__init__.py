"""Trossen ViperX 300 6DOF."""
