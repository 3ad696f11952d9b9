"""Simulated environments: one batched engine, tasks on it, and their rendering."""
