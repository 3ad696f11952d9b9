"""Gymnasium-Robotics' AdroitHandDoor."""
