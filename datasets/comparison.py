"""Whether two datasets hold the same, field by field."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.transitions import Episode


@runtime_checkable
class Episodes(Protocol):
    """Whatever has episodes: a reader, or a conversion."""

    @property
    def num_episodes(self) -> int:
        """How many."""
        ...

    def episodes(self) -> Iterator[Episode]:
        """All, in order."""
        ...


@dataclass
class Agreement:
    """How one field of two datasets compares, over all episodes."""

    name: str
    identical: bool = True
    """To the bit, type and shape included."""
    greatest_difference: float = 0.0
    """In the field's unit; infinite where shapes differ."""
    squares: float = 0.0
    """Sum of squared differences, for `psnr`."""
    count: int = 0

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio of 8-bit images [dB]; infinite where they are equal."""
        return float(10 * np.log10(255.0**2 * self.count / self.squares)) if self.squares else float("inf")

    def add(self, left: Shaped[ndarray, "_ ..."], right: Shaped[ndarray, "_ ..."]) -> None:
        """Compare one episode's arrays."""
        if left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes():
            self.count += left.size
            return
        self.identical = False
        if left.shape != right.shape:
            self.greatest_difference = float("inf")
            return
        difference = np.abs(np.nan_to_num(left.astype(np.float64)) - np.nan_to_num(right.astype(np.float64)))
        self.greatest_difference = max(self.greatest_difference, float(difference.max(initial=0.0)))
        self.squares += float(np.square(difference).sum())
        self.count += left.size


def compare(
    left: Episodes, right: Episodes, report: Callable[[int, int], None] = lambda done, total: None
) -> list[Agreement]:
    """Agreement of every field that either dataset has; also of `episodes` (how many) and `texts` (metadata)."""
    found = {"episodes": Agreement("episodes"), "texts": Agreement("texts")}
    if left.num_episodes != right.num_episodes:
        difference = float(abs(left.num_episodes - right.num_episodes))
        found["episodes"] = Agreement("episodes", identical=False, greatest_difference=difference)
    pairs = enumerate(zip(left.episodes(), right.episodes(), strict=False), start=1)
    for number, (mine, theirs) in pairs:
        texts = [json.dumps(episode.metadata, sort_keys=True) for episode in (mine, theirs)]
        if texts[0] != texts[1]:
            found["texts"].identical = False
        arrays, others = _flat(mine), _flat(theirs)
        for name in dict.fromkeys((*arrays, *others)):
            agreement = found.setdefault(name, Agreement(name))
            if name in arrays and name in others:
                agreement.add(arrays[name], others[name])
            else:
                agreement.identical, agreement.greatest_difference = False, float("inf")
        report(number, left.num_episodes)
    return list(found.values())


def _flat(episode: Episode) -> dict[str, Shaped[ndarray, "_ ..."]]:
    streams = {f"streams/{s}/{name}": array for s, fields in episode.streams.items() for name, array in fields.items()}
    return {**episode.steps, **streams}
