"""Plots of what a dataset holds, one element of a field each, in the style of the report's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec
from alula.training.plots import COLORS, LINES, canvas, svg

BINS = 40
MOST_DOTS = 400
"""More episodes than this are thinned out evenly."""
MOST_POINTS = 600
"""Longer lines keep the extremes of each piece."""


@dataclass(frozen=True)
class Element:
    """One number of a field."""

    field: FieldSpec
    index: int

    @property
    def title(self) -> str:
        """Field, element and unit, without what is obvious."""
        field = self.field
        name = field.name.removeprefix("observation.")
        if len(field.shape) > 1 or (field.shape and not field.element_names):
            name += f" {self.index}"
        if field.element_names:
            name += f" {field.element_names[self.index % len(field.element_names)]}"
        unit = field.units[self.index % len(field.units)]
        return name if unit == "1" else f"{name} [{unit}]"

    @property
    def limits(self) -> list[float]:
        """What the specification permits at least and at most, as far as it says."""
        return [float(ends[self.index % len(ends)]) for ends in (self.field.low, self.field.high) if ends is not None]

    def of(self, values: Shaped[ndarray, "steps *field"]) -> Float64[ndarray, " steps"]:
        """Its values over time."""
        return values.reshape(len(values), self.field.size)[:, self.index].astype(np.float64)


class Line(NamedTuple):
    """One episode of an element."""

    x: Float64[ndarray, " points"]
    y: Float64[ndarray, " points"]


def sorted_plot(
    title: str,
    label: str,
    values: Shaped[ndarray, " episodes"],
    successful: Bool[ndarray, " episodes"] | None,
) -> str:
    """A dot for every episode, from the smallest value to the largest.

    Args:
        title: What it is.
        label: The same with its unit.
        values: Of each episode.
        successful: Which episodes reached their goal, drawn in another colour; None where nobody said.
    """
    order = np.argsort(values, kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_DOTS)).round().astype(int))
    shown = order[ranks]
    reached = np.ones(len(values), dtype=bool) if successful is None else successful
    with canvas(5.2, 2.6) as (figure, axes):
        for is_success, color in ((True, "after"), (False, "before")):
            chosen = reached[shown] == is_success
            axes.plot(ranks[chosen] + 1, values[shown[chosen]], "o", color=COLORS[color], markersize=4, alpha=0.8)
        axes.set_xlim(0.5, len(values) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("episodes, sorted")
        axes.set_ylabel(label)
        axes.set_title(title)
        return svg(figure, f"{title} of all episodes, sorted")


def distribution_plot(element: Element, statistics: FieldStatistics) -> str:
    """How often an element takes which value, from the smallest to the largest; limits are dashed.

    Args:
        element: Which.
        statistics: Of its field, with quantiles. Each quantile stands for as many values.
    """
    assert statistics.quantiles is not None  # of a dataset they are always taken
    values = statistics.quantiles.reshape(len(statistics.quantiles), -1)[:, element.index]
    missing = statistics.missing.reshape(-1)[element.index] / statistics.count
    with canvas(3.4, 1.7) as (figure, axes):
        if missing < 1:
            axes.stairs(*np.histogram(values, BINS), fill=True, color=COLORS["after"], alpha=0.75)
            _mark_limits(axes, element, values[0], values[-1], upright=True)
        axes.grid(visible=False, axis="y")
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(element.title)
        remark = _remark(values, missing)
        axes.set_title(remark, loc="right", color=COLORS["muted"], fontsize=9)
        return svg(figure, f"Distribution of {element.title}")


def _remark(values: Float64[ndarray, " ranks"], missing: float) -> str:
    if missing == 1:
        return "no values"
    if values[0] == values[-1]:
        return f"always {values[0]:.4g}"
    return f"{100 * missing:.2g} % missing" if missing else ""


def time_plot(element: Element, lines: Sequence[Line], label: str) -> str:
    """An element over time in a few episodes, one colour each; limits are dashed, gaps are values not recorded."""
    with canvas(3.4, 1.9) as (figure, axes):
        for line, color in zip(lines, LINES, strict=False):
            thin = thinned(line)
            axes.plot(thin.x, thin.y, color=color, linewidth=1.2, alpha=0.9)
        everything = np.concatenate([line.y for line in lines])
        known = everything[np.isfinite(everything)]
        if len(known):
            _mark_limits(axes, element, known.min(), known.max(), upright=False)
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label)
        axes.set_title(element.title)
        return svg(figure, f"{element.title} over time")


def _mark_limits(axes: Axes, element: Element, low: float, high: float, upright: bool) -> None:
    """Dashed lines at limits, but for those so far from the values that these would shrink to nothing."""
    span = high - low
    draw = axes.axvline if upright else axes.axhline
    for limit in element.limits:
        if low - span <= limit <= high + span:
            draw(limit, color=COLORS["muted"], linestyle="--", linewidth=1.0)


def thinned(line: Line) -> Line:
    """Smallest and largest value of each of many pieces, in the order in which they occurred."""
    if len(line.x) <= MOST_POINTS:
        return line
    keep: list[int] = []
    for piece in np.array_split(np.arange(len(line.x)), MOST_POINTS // 2):
        # NaN counts as both, so that gaps stay.
        keep += piece[sorted({int(line.y[piece].argmin()), int(line.y[piece].argmax())})].tolist()
    return Line(line.x[keep], line.y[keep])
