"""Universal Robots UR5e."""
