"""People who steer robots: by keyboard, by gamepad, or as a script says that they would."""
