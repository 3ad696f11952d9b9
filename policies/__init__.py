"""Policies: conditioner, field, process, their composition, and policy transforms."""
