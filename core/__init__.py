"""The contract that every room of alula shares."""
