"""The report's plots as inline SVG: text stays text, and colours are the page's, so light and dark mode both read."""

import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

Metrics = Sequence[Mapping[str, float]]
"""The lines of a run's metrics.jsonl."""

# Stand-ins that Matplotlib draws with; `svg` turns each into the CSS variable of the same name.
COLORS = {"ink": "#010101", "muted": "#020202", "rule": "#030303", "before": "#040404", "after": "#050505"}
COLORS |= {f"part-{index}": f"#06060{index}" for index in range(5)}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a metric's name may hold a dollar sign
    "font.size": 10.0,
    "text.color": COLORS["ink"],
    "axes.edgecolor": COLORS["rule"],
    "axes.labelcolor": COLORS["muted"],
    "axes.titlecolor": COLORS["ink"],
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLORS["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": COLORS["rule"],
    "ytick.color": COLORS["rule"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
LINES = tuple(color for name, color in COLORS.items() if name.startswith("part-"))
"""Several lines in one plot, in this order."""
LOG_SPAN = 50.0
"""From this ratio of largest to smallest value on, a positive quantity gets a logarithmic axis."""


class Dot(NamedTuple):
    """A share of successes and its interval."""

    label: str
    color: str
    """Of `COLORS`."""
    caption: str
    """The value in words."""
    value: float
    low: float
    high: float


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """One pair of axes in the report's style; sizes in inches, which the page scales to fit."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def svg(figure: Figure, description: str) -> str:
    """The figure as an element of an HTML page."""
    buffer = io.StringIO()
    # The salt makes the file reproducible, and keeps the identifiers of one page's plots apart.
    with matplotlib.rc_context({"svg.hashsalt": description}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :].replace("xlink:href", "href")
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # such as axes_1, in every plot and referred to by none
    for name, stand_in in COLORS.items():
        body = body.replace(stand_in, f"var(--{name})")
    width, height = 72 * figure.get_size_inches()
    return f'<svg role="img" aria-label="{html.escape(description)}" viewBox="0 0 {width:g} {height:g}">{body}'


def dot_plot(dots: Sequence[Dot]) -> str:
    """Success rates with their 95 % intervals, one row each."""
    with canvas(5.2, 0.7 + 0.5 * len(dots)) as (figure, axes):
        for row, dot in enumerate(dots):
            color = COLORS[dot.color]
            axes.plot([dot.low, dot.high], [row, row], color=color, linewidth=7, alpha=0.3, solid_capstyle="round")
            axes.plot([dot.value], [row], "o", color=color, markersize=9)
            axes.annotate(dot.caption, (dot.value, row), (0, 9), textcoords="offset points", ha="center")
        axes.set_yticks(range(len(dots)), [dot.label for dot in dots])
        axes.tick_params(axis="y", length=0, labelcolor=COLORS["ink"])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(len(dots) - 0.6, -0.75)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_xlabel("episodes solved, with 95 % interval")
        return svg(figure, "Success rates with 95 % intervals")


def learning_curve(metrics: Metrics, against: str, reference: Dot | None) -> str:
    """Success during training.

    Args:
        metrics: With `evaluation/success`, `evaluation/low`, `evaluation/high` and `rollout/success` where measured.
        against: `steps` of the environments or `minutes` of training.
        reference: The level before training, drawn as a dashed line.
    """
    with canvas(5.2, 3.4) as (figure, axes):
        rollouts = [line for line in metrics if "rollout/success" in line]
        if rollouts:
            success = [line["rollout/success"] for line in rollouts]
            axes.plot(
                _abscissa(rollouts, against), success, color=COLORS["muted"], linewidth=0.9, label="training rollouts"
            )
        evaluations = [line for line in metrics if "evaluation/success" in line]
        if evaluations:
            _band(axes, _abscissa(evaluations, against), evaluations)
        if reference is not None:
            axes.axhline(reference.value, color=COLORS["before"], linestyle="--", label=reference.label)
        axes.set_ylim(0, 1.03)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_ylabel("episodes solved")
        if against == "steps":
            axes.xaxis.set_major_formatter(EngFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(6))
        label = {"steps": "environment steps", "minutes": "minutes of training"}[against]
        axes.set_xlabel(label)
        figure.legend(loc="outside upper left", ncols=4, columnspacing=1.2, handlelength=1.6)
        return svg(figure, f"Success against {label}")


def _abscissa(metrics: Metrics, against: str) -> list[float]:
    return [line["step"] if against == "steps" else line["seconds"] / 60 for line in metrics]


def _band(axes: Axes, x: Sequence[float], evaluations: Metrics) -> None:
    """Evaluated success, and its interval where every evaluation has one."""
    if all("evaluation/low" in line and "evaluation/high" in line for line in evaluations):
        low, high = ([line[f"evaluation/{side}"] for line in evaluations] for side in ("low", "high"))
        axes.fill_between(x, low, high, color=COLORS["after"], alpha=0.2, linewidth=0, label="95 % interval")
    success = [line["evaluation/success"] for line in evaluations]
    axes.plot(x, success, "o-", color=COLORS["after"], markersize=4, linewidth=1.8, label="evaluation")


def metric_plot(metrics: Metrics, name: str, title: str, color: str, reference: float | None = None) -> str:
    """One measurement against steps, small; `reference` is a level to compare with, drawn as a dashed line."""
    lines = [line for line in metrics if math.isfinite(line.get(name, math.nan))]
    values = [line[name] for line in lines]
    with canvas(3.4, 2.1) as (figure, axes):
        marker = "o" if len(values) < 3 else None  # a line through one point is invisible
        axes.plot([line["step"] for line in lines], values, color=COLORS[color], linewidth=1.3, marker=marker)
        if reference is not None:
            axes.axhline(reference, color=COLORS["muted"], linestyle="--", linewidth=1.0)
            axes.set_ylim(bottom=0)
        if values and min(values) > 0 and max(values) / min(values) > LOG_SPAN:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # the usual one writes formulas
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.set_title(title)
        return svg(figure, f"{title} against steps ({name})")


def foretold_plot(
    title: str, error: str, parts: Sequence[tuple[Sequence[float], Sequence[float]]], rate: float | None
) -> str:
    """One element of the action over time: what was recorded, and on top what the policy predicted.

    Args:
        title: Name and unit of the element.
        error: How far predictions are off, in words.
        parts: Recorded and predicted values of each episode; episodes follow each other, set apart by a line.
        rate: Values per second [Hz]; without one, steps are counted.
    """
    with canvas(3.4, 1.9) as (figure, axes):
        start = 0
        for recorded, predicted in parts:
            x = [(start + step) / (rate or 1) for step in range(len(recorded))]
            if start:
                axes.axvline((start - 0.5) / (rate or 1), color=COLORS["rule"], linewidth=1.4)
            axes.plot(x, recorded, color=COLORS["muted"], linewidth=2.2, alpha=0.5, solid_capstyle="round")
            axes.plot(x, predicted, color=COLORS["after"], linewidth=1.2)
            start += len(recorded)
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("seconds" if rate else "steps")
        axes.set_title(title)
        axes.set_title(error, loc="right", color=COLORS["muted"], fontsize=9)
        return svg(figure, f"{title}: recorded and predicted")
