"""Tasks of arms over a table."""
