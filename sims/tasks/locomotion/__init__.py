"""Gymnasium's Hopper, Walker2d, HalfCheetah and Ant on the batched engine."""
