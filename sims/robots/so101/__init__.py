"""TheRobotStudio SO-101."""
