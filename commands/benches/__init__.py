"""What `alula bench` measures: one file an area."""
