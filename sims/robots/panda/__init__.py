"""Franka Emika Panda."""
