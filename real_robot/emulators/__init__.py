"""Devices made of software that speak the real protocols, each a process of its own."""
