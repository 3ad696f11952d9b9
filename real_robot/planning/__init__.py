"""Whoever thinks: the policy's network in this process, in one of its own, or on another machine."""
