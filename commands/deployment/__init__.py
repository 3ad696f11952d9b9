"""What `alula deploy`, `emulate`, `record` and `replay` have in common."""
