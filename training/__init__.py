"""Training and evaluation: every method is a choice of policy, estimator and objective."""
