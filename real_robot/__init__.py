"""Real arms and quadcopters behind a governor: nothing reaches a motor but a `SafeCommand`."""
