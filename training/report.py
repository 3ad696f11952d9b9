"""The report of a run: one HTML file, made from the run folder's files alone and readable without a network."""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alula.core.errors import AlulaError
from alula.training.plots import Dot, Metrics, dot_plot, foretold_plot, learning_curve, metric_plot
from alula.training.run import read_metrics

LABELS = {"cloned": "cloned", "finetuned": "fine-tuned", "evaluation": "trained"}
"""File name of a score or a film, and what the page says."""
COLORS = {"cloned": "before", "finetuned": "after"}
TITLES = {
    "cloning/loss": "cloning loss",
    "cloning/learning_rate": "cloning learning rate",
    "held_out/error": "held-out action error [std]",
    "rollout/reward_per_step": "reward per step",
    "actor/kl": "KL from the acting policy",
    "actor/clip_fraction": "clipped share",
    "actor/first_ratio_error": "ratio error before updating",
    "actor/updates": "actor updates per iteration",
    "critic/loss": "critic loss",
}
"""Names of measurements in words; others go by their own name."""
VIDEO_NAME = re.compile(r"(?P<stage>\w+)_(?P<outcome>success|failure)_seed(?P<seed>\d+)")
SIGNIFICANT = 0.05
NBSP = "\N{NO-BREAK SPACE}"
"""Between a number and its unit."""


@dataclass
class Score:
    """One evaluation: the fields of `Evaluation.to_dict` that the page shows."""

    name: str
    success_rate: float
    low: float
    high: float
    episodes: int
    mean_length: float
    stochastic: bool
    network_evaluations: float
    latency_ms: float

    @property
    def label(self) -> str:
        """What the page calls it."""
        return LABELS.get(self.name, self.name)

    @property
    def dot(self) -> Dot:
        """For the plots."""
        color = COLORS.get(self.name, "ink")
        return Dot(self.label, color, rate(self.success_rate), self.success_rate, self.low, self.high)


@dataclass
class Video:
    """One filmed episode."""

    stage: str
    outcome: str
    caption: str
    data: str
    """Base64 of the MP4 file."""


@dataclass
class Stage:
    """One training run: cloning or fine-tuning."""

    metrics: Metrics = ()
    times: dict[str, float] = field(default_factory=dict)
    """Seconds by part."""

    @property
    def effort(self) -> str:
        """Steps and minutes of the environments."""
        steps, seconds = self.metrics[-1]["step"], self.metrics[-1]["seconds"]
        return f"{count(steps)} environment steps ({duration(seconds)})"


@dataclass
class Report:
    """Everything the page is made from."""

    config_files: dict[str, str]
    """Text by name."""
    summary: Mapping[str, Any]
    cloning: Stage
    finetuning: Stage
    algorithm: str
    """Of the fine-tuning."""
    scores: list[Score]
    """Before first."""
    comparison: Mapping[str, Any] | None
    held_out: Mapping[str, Any] | None
    """What `HeldOutError.to_dict` gave."""
    videos: list[Video]


def write_report(folder: Path) -> Path:
    """Write `report.html` into a pipeline's or a single run's folder, from what the folder holds.

    Returns:
        Where the page is.

    Raises:
        AlulaError: the folder holds no run, or a file in it is damaged.
    """
    report = _read(folder)
    page = render(
        "report.html.jinja",
        report=report,
        title=report.summary.get("title") or folder.resolve().name,
        result=result_in_words(report),
        plots=_plots(report),
        time_bars=_time_bars(report),
        video_stages=_by_stage(report.videos),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def render(template: str, **values: Any) -> str:
    """A page of ours, from its template in this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "duration": duration, "rate": rate}
    return environment.get_template(template).render(**values)


def _read(folder: Path) -> Report:
    """Everything the page shows; only config.yaml must be there."""
    if not (folder / "config.yaml").is_file():
        raise AlulaError(
            f"'{folder}' holds no run (no config.yaml). Give the folder that alula demo, train or finetune wrote"
        )
    metrics = _metrics(folder)
    plain = _stage(folder, metrics)
    is_cloning = any(name.startswith("cloning/") for line in metrics for name in line)
    cloning = plain if is_cloning else _stage(folder / "cloning")
    finetuning = plain if metrics and not is_cloning else _stage(folder / "finetuning")
    configs = [folder / name / "config.yaml" for name in ("", "cloning", "finetuning")]
    configs = [path for path in configs if path.is_file()]
    return Report(
        {str(path.relative_to(folder)): path.read_text() for path in configs},
        _json(folder / "summary.json") or {},
        cloning,
        finetuning,
        _algorithm(configs),
        _scores(folder / "evaluation"),
        _json(folder / "evaluation" / "comparison.json"),
        _json(folder / "evaluation" / "held_out.json"),
        [_video(path) for path in sorted((folder / "videos").glob("*.mp4"))],
    )


def _stage(folder: Path, metrics: Metrics | None = None) -> Stage:
    return Stage(_metrics(folder) if metrics is None else metrics, _json(folder / "times.json") or {})


def _algorithm(configs: Iterable[Path]) -> str:
    """The name under `algorithm` in the first of the configurations that has one."""
    for path in configs:
        try:
            settings = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise _damaged(path, "YAML", error) from error
        algorithm = settings.get("algorithm") if isinstance(settings, dict) else None
        name = algorithm.get("name") if isinstance(algorithm, dict) else algorithm
        if isinstance(name, str):
            return name
    return "reinforcement learning"


def _metrics(folder: Path) -> Metrics:
    try:
        return read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    except json.JSONDecodeError as error:
        raise _damaged(folder / "metrics.jsonl", "JSON", error) from error


def _json(path: Path) -> dict[str, Any] | None:
    """What a file holds, or None where there is none."""
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except json.JSONDecodeError as error:
        raise _damaged(path, "JSON", error) from error


def _damaged(path: Path, language: str, error: Exception) -> AlulaError:
    return AlulaError(
        f"'{path}' is not valid {language} ({error}). Repair the file or remove it, and write the report again"
    )


def _scores(folder: Path) -> list[Score]:
    """Every evaluation in the folder, in the order of `LABELS`, then by name."""
    order = list(LABELS)
    paths = sorted(folder.glob("*.json"), key=lambda path: (order.index(path.stem) if path.stem in order else 9, path))
    found = [(path.stem, _json(path) or {}) for path in paths]
    names = [name for name in Score.__dataclass_fields__ if name != "name"]
    return [
        Score(stem, **{name: data[name] for name in names})
        for stem, data in found
        if set(names) <= set(data)  # comparison.json and others are not scores
    ]


def _video(path: Path) -> Video:
    data = base64.b64encode(path.read_bytes()).decode()
    match = VIDEO_NAME.fullmatch(path.stem)
    if match is None:
        return Video("", "", path.stem, data)
    return Video(match["stage"], match["outcome"], f"seed {match['seed']}: {match['outcome']}", data)


def _by_stage(videos: Sequence[Video]) -> list[tuple[str, str, list[Video]]]:
    """Name, label and films of each stage: before first, successes first."""
    stages = sorted({video.stage for video in videos}, key=lambda name: (name not in LABELS, name))
    ordered = sorted(videos, key=lambda video: video.outcome, reverse=True)
    return [(name, LABELS.get(name, name), [video for video in ordered if video.stage == name]) for name in stages]


def _plots(report: Report) -> dict[str, list[str]]:
    """By place on the page."""
    cloning, finetuning = report.cloning.metrics, report.finetuning.metrics
    curves = []
    if any(name in line for line in finetuning for name in ("evaluation/success", "rollout/success")):
        before = next((score.dot for score in report.scores if score.name == "cloned"), None)
        curves = [learning_curve(finetuning, against, before) for against in ("steps", "minutes")]
    return {
        "scores": [dot_plot([score.dot for score in report.scores])] if report.scores else [],
        "curves": curves,
        "finetuning": _small_plots(finetuning, "after"),
        "cloning": _small_plots(cloning, "before", report.held_out),
        "held_out": _foretold_plots(report.held_out) if report.held_out else [],
    }


def _foretold_plots(held_out: Mapping[str, Any]) -> list[str]:
    """Recorded and predicted values, one plot for every element of the action."""
    plots = []
    for index, element in enumerate(held_out["elements"]):
        parts = [
            ([row[index] for row in episode["recorded"]], [row[index] for row in episode["predicted"]])
            for episode in held_out["foretold"]
        ]
        unit = "" if element["unit"] == "1" else f" {element['unit']}"
        title = element["name"] + (f" [{unit.strip()}]" if unit else "")
        plots.append(foretold_plot(title, f"off by {element['error']:.2g}{unit}", parts, held_out["rate"]))
    return plots


def _small_plots(metrics: Metrics, color: str, held_out: Mapping[str, Any] | None = None) -> list[str]:
    """One for every measurement that the learning curves do not show, the held-out error last."""
    names = dict.fromkeys(name for line in metrics for name in line if name not in ("step", "seconds"))
    shown = [name for name in names if not name.startswith("evaluation/") and name != "rollout/success"]
    references = {"held_out/error": held_out["baseline"]} if held_out else {}
    return [
        metric_plot(metrics, name, TITLES.get(name, name), color, references.get(name))
        for name in sorted(shown, key=lambda name: name.startswith("held_out/"))
    ]


def _time_bars(report: Report) -> list[tuple[str, float, list[tuple[str, float, float]]]]:
    """Title, seconds in all, and name, seconds and share of each part."""
    whole = {name: 60 * minutes for name, minutes in (report.summary.get("minutes") or {}).items()}
    total = whole.pop("total", 0.0)
    bars = {
        "Everything": {**whole, "other": max(0.0, total - sum(whole.values()))} if whole else whole,
        "Cloning": report.cloning.times,
        "Fine-tuning": report.finetuning.times,
    }
    found = []
    for title, times in bars.items():
        total = sum(times.values())
        if total > 0:
            found.append((title, total, [(name, value, value / total) for name, value in times.items()]))
    return found


def result_in_words(report: Report) -> list[str]:
    """The finding, in sentences that claim no more than the numbers show."""
    scores = {score.name: score for score in report.scores}
    before, after = scores.get("cloned"), scores.get("finetuned")
    if before and after:
        effort = f"{report.finetuning.effort} of {report.algorithm}" if report.finetuning.metrics else "fine-tuning"
        return [
            f"Cloning solves {_share(before)} of {before.episodes} fresh episodes; "
            f"after {effort} it is {_share(after)}.",
            _verdict(before, after, report.comparison),
        ]
    if report.scores:
        return [
            f"The {score.label} policy solves {_share(score)} of {score.episodes} fresh episodes."
            for score in report.scores
        ]
    evaluated = [line["evaluation/success"] for line in report.finetuning.metrics if "evaluation/success" in line]
    if evaluated:
        return [
            f"During {report.finetuning.effort} of {report.algorithm}, success went from "
            f"{rate(evaluated[0])} at the first evaluation to {rate(evaluated[-1])} at the last.",
            "The finished policy was not scored on fresh episodes.",
        ]
    if report.held_out:
        found = report.held_out
        return [
            f"On {len(found['episodes'])} recorded episodes that training never saw, the policy's actions are off by "
            f"{found['error']:.2f} standard deviations on average; the mean action is off by {found['baseline']:.2f}."
        ]
    return ["This run was not evaluated."]


def _verdict(before: Score, after: Score, comparison: Mapping[str, Any] | None) -> str:
    """Whether the two 95 % intervals, and failing that the pairs, tell the policies apart."""
    if after.low > before.high:
        return "The intervals are disjoint: an improvement."
    if after.high < before.low:
        return "The intervals are disjoint: fine-tuning made it worse."
    if comparison and comparison["p_value"] < SIGNIFICANT:
        change = "an improvement" if comparison["difference"] > 0 else "a change for the worse"
        return f"The intervals overlap; only the paired test below shows {change} (p = {comparison['p_value']:.2g})."
    return "The intervals overlap: no improvement is shown."


def _share(score: Score) -> str:
    return f"{rate(score.success_rate)} [{100 * score.low:.0f}, {100 * score.high:.0f}]"


def rate(share: float) -> str:
    """A share in percent; rounded to all or nothing only where it is all or nothing."""
    text = f"{100 * share:.0f}"
    if text in ("0", "100") and 0 < share < 1:
        text = f"{100 * share:.1f}"
    return f"{text}{NBSP}%"


def duration(seconds: float) -> str:
    """Time in the unit a reader would choose."""
    if seconds < 60:
        return f"{seconds:.2g}{NBSP}s" if seconds < 10 else f"{seconds:.0f}{NBSP}s"
    return f"{seconds / 60:.1f}{NBSP}min" if seconds < 90 * 60 else f"{seconds / 3600:.1f}{NBSP}h"


def count(number: float) -> str:
    """Hundred thousands and more in millions."""
    return f"{number / 1e6:.2g}{NBSP}M" if number >= 1e5 else f"{number:,.0f}"
