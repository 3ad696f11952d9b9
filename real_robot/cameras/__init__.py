"""Cameras: each in a process of its own, which stamps every picture when it comes and shares it through a ring."""
