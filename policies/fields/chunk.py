"""Sizes of what a field takes in and gives out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChunkShape:
    """Sizes of a chunk, and of what is predicted about it."""

    horizon: int
    action_size: int
    prediction_size: int
    """Elements predicted per step of the chunk."""
