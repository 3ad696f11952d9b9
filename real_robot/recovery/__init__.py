"""What to do when a skill has failed: verify and try again, and behaviours that put things right."""
