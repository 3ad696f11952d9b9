"""Vendor protocols as pure functions between bytes and messages: no ports, no clocks."""
