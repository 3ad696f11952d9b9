"""Quadcopters: one Crazyflie, three engines that agree."""
