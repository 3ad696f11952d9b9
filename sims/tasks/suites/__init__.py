"""Environments of other suites, as they are: one Python object each, behind our contract."""
