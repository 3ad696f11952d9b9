"""Reports of synthetic run folders: every part appears, none is required, nothing is loaded from elsewhere."""

import json
import math
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from alula.core.errors import AlulaError
from alula.training import plots
from alula.training.evaluation import Evaluation, compare, wilson_interval
from alula.training.plots import COLORS, foretold_plot, metric_plot
from alula.training.report import NBSP, count, duration, rate, write_report

EPISODES = 200
SECTIONS = ["scores-plot", "story", "learning", "videos", "scores", "time", "dataset", "configuration", "environment"]
SECTIONS.append("commands")
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page and complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.tags, self.words = text, [], [], ""
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> was never opened"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words = " ".join(f"{self.words} {data}".split()) if "style" not in self.open else self.words

    def all(self, name, attribute):
        return [attributes[attribute] for tag, attributes in self.tags if tag == name and attribute in attributes]


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def write_video(path, brightness):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(20):
            image = np.full((96, 128, 3), brightness, dtype=np.uint8)
            image[40:56, 5 * index : 5 * index + 16] = (230, 140, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_jsonl(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write_cloning(folder):
    lines = [
        {
            "step": step,
            "seconds": step / 60,
            "cloning/loss": 0.9 * math.exp(-step / 700) + 0.012,
            "cloning/learning_rate": 1e-3 * (0.55 + 0.45 * math.cos(math.pi * step / 3000)),
        }
        for step in range(100, 3001, 100)
    ]
    write_jsonl(folder, lines)
    (folder / "config.yaml").write_text(yaml.safe_dump({"training": {"steps": 3000}, "seed": 0}))
    (folder / "times.json").write_text(json.dumps({"update": 48.0}))


HELD_OUT = {
    "episodes": [4, 19],
    "steps": 577,
    "windows": 570,
    "execute_steps": 8,
    "error": 0.36872,
    "baseline": 0.87749,
    "elements": [
        {"name": "reach", "unit": "m", "error": 0.0338, "baseline": 0.17, "std": 0.19},
        {"name": "<b>turn</b>", "unit": "1", "error": 0.2, "baseline": 0.4, "std": 0.5},
    ],
    "rate": 20.0,
    "foretold": [
        {"episode": 4, "recorded": [[0.1, 0.2]] * 30, "predicted": [[0.11, 0.3]] * 30},
        {"episode": 19, "recorded": [[0.0, 0.2]] * 5, "predicted": [[0.1, 0.25]] * 5},
    ],
}


def write_held_out(folder, **changes):
    (folder / "evaluation").mkdir(exist_ok=True)
    (folder / "evaluation" / "held_out.json").write_text(json.dumps(HELD_OUT | changes))


def write_finetuning(folder):
    rng, lines = np.random.default_rng(0), []
    for iteration in range(37):
        success = 0.29 + 0.68 / (1 + math.exp(-(iteration - 14) / 4))
        line = {"step": 16384 * iteration, "seconds": 2.3 * iteration}
        if iteration:
            line |= {
                "rollout/reward_per_step": 0.02 * success,
                "rollout/success": float(np.clip(0.85 * success + rng.normal(0, 0.03), 0, 1)),
                "actor/kl": 0.012 + rng.uniform(0, 0.01),
                "actor/clip_fraction": 0.15 + rng.uniform(0, 0.05),
                "actor/first_ratio_error": 1e-7 * rng.uniform(1, 5),
                "critic/loss": 2.0 * math.exp(-iteration / 8) + 0.02,
            }
        if iteration % 4 == 0:
            low, high = wilson_interval(round(100 * success), 100)
            line |= {"evaluation/success": success, "evaluation/low": low, "evaluation/high": high}
        lines.append(line)
    write_jsonl(folder, lines)
    settings = {"algorithm": {"name": "residual_ppo", "num_envs": 256}, "seed": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "times.json").write_text(json.dumps({"physics": 52.1, "sampling": 11.8, "update": 18.9}))


def write_evaluations(folder, before, after):
    """Scores of policies that solve the first `before` and `after` seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    evaluations = {}
    for name, solved in (("cloned", before), ("finetuned", after)):
        success = [index < solved for index in range(EPISODES)]
        lengths = [70 if reached else 200 for reached in success]
        seeds = list(range(10_000, 10_000 + EPISODES))
        evaluations[name] = Evaluation(seeds, success, lengths, False, 0, 8.0 if name == "cloned" else 9.0, 2.41)
        (folder / f"{name}.json").write_text(json.dumps(evaluations[name].to_dict()))
    comparison = compare(evaluations["cloned"], evaluations["finetuned"])
    (folder / "comparison.json").write_text(json.dumps(asdict(comparison)))


SUMMARY = {
    "title": "Peg insertion, from 50 demonstrations to 97 %",
    "task": "Insert a 20 mm peg into a socket with 1 mm of clearance; the socket's pose is random.",
    "story": [
        "A scripted expert recorded 50 demonstrations.",
        "A diffusion policy was cloned from them in 3000 gradient steps.",
        "A residual policy was trained on top by PPO in 256 parallel environments.",
        "Both policies were scored on the same 200 seeds, which neither had seen.",
    ],
    "seed": 0,
    "machine": "x86_64, 2 cores, 8 GiB",
    "commit": "0123456789abcdef",
    "versions": {"alula": "0.1.0", "torch": "2.9.0", "mujoco": "4.0.0", "numpy": "2.4.6", "python": "3.11.2"},
    "commands": ["alula demo seed=0", "alula evaluate checkpoint=run/finetuning episodes=200"],
    "minutes": {"collect": 0.3, "clone": 0.8, "finetune": 1.9, "evaluate": 0.4, "total": 3.6},
    "dataset": {"episodes": 50, "steps": 4210, "success_rate": 1.0, "source": "scripted expert"},
}


def write_pipeline(folder, before=58, after=194):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"task": {"name": "peg_insertion"}, "seed": 0}))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    write_cloning(folder / "cloning")
    write_finetuning(folder / "finetuning")
    write_evaluations(folder / "evaluation", before, after)
    (folder / "videos").mkdir()
    names = ["cloned_success_seed1", "cloned_failure_seed2", "finetuned_success_seed2", "finetuned_failure_seed31"]
    for index, name in enumerate(names):
        write_video(folder / "videos" / f"{name}.mp4", 40 + 40 * index)
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture(scope="module")
def page(pipeline):
    return page_of(pipeline)


@pytest.fixture
def bare(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    return tmp_path


def test_every_part_appears_in_order(page):
    assert page.all("section", "id") == SECTIONS
    assert len(page.all("video", "src")) == 4
    plots = ["Success rates", "Success against environment steps", "Success against minutes", "cloning loss", "critic"]
    assert all(any(label.startswith(plot) for label in page.all("svg", "aria-label")) for plot in plots)
    for part in (*SUMMARY["story"], *SUMMARY["commands"], *SUMMARY["versions"].values(), "seed 31: failure"):
        assert part in page.words


def test_scores_times_and_dataset_are_told(page):
    assert "29 % [23.2, 35.6] 200 deterministic 8 2.41 ms 162 steps" in page.words
    assert "0 were solved by cloning only, 136 by the fine-tuned policy only, 58 by both and 6 by neither" in page.words
    assert "difference of +68.0 points" in page.words
    assert "exact McNemar p = 2.3e-41" in page.words
    assert "physics 63 % 52 s sampling 14 % 12 s update 23 % 19 s" in page.words
    assert "Everything: 3.6 min" in page.words
    assert "other 6 % 12 s" in page.words
    assert "episodes 50 steps 4,210 successful 100 % source scripted expert" in page.words


def test_result_in_words(page):
    assert (
        "Cloning solves 29 % [23, 36] of 200 fresh episodes; after 0.59 M environment steps (1.4 min) of residual_ppo "
        "it is 97 % [94, 99]. The intervals are disjoint: an improvement." in page.words
    )


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (150, 152, "The intervals overlap: no improvement is shown."),
        (150, 160, "The intervals overlap; only the paired test below shows an improvement (p = 0.002)."),
        (160, 150, "The intervals overlap; only the paired test below shows a change for the worse (p = 0.002)."),
        (180, 20, "The intervals are disjoint: fine-tuning made it worse."),
    ],
)
def test_verdict_claims_no_more_than_is_shown(bare, before, after, verdict):
    write_evaluations(bare / "evaluation", before, after)
    assert verdict in page_of(bare).words


def test_without_a_paired_test_overlap_shows_nothing(bare):
    write_evaluations(bare / "evaluation", 150, 160)
    (bare / "evaluation" / "comparison.json").unlink()
    assert "no improvement is shown" in page_of(bare).words


def test_nothing_is_loaded_from_elsewhere(page):
    for name, value in [pair for _, attributes in page.tags for pair in attributes.items()]:
        if name in ("src", "href", "poster", "data", "xlink:href"):
            assert value.startswith(("data:", "#")), value[:80]
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", page.text))
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed")]
    assert "@import" not in page.text


def test_identifiers_are_unique_and_colours_are_the_pages(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r"url\(#([^)]*)\)", page.text)) | {href[1:] for href in page.all("use", "href")}
    assert targets <= set(ids)
    assert not [color for color in COLORS.values() if color in page.text]


def test_only_the_configuration_is_required(bare):
    page = page_of(bare)
    assert page.all("section", "id") == ["configuration"]
    assert "This run was not evaluated." in page.words
    assert bare.name in page.words


@pytest.mark.parametrize(
    ("part", "gone"),
    [
        ("summary.json", {"story", "dataset", "environment", "commands"}),
        ("cloning", set()),
        ("finetuning", set()),
        ("evaluation", {"scores-plot", "scores"}),
        ("videos", {"videos"}),
    ],
)
def test_each_part_may_be_missing(pipeline, tmp_path, part, gone):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()
    assert page_of(folder).all("section", "id") == [name for name in SECTIONS if name not in gone]


def test_parts_of_the_summary_may_be_missing(bare):
    (bare / "summary.json").write_text(json.dumps({"title": "Short", "dataset": {"episodes": 3, "success_rate": None}}))
    assert "episodes 3 successful not recorded" in page_of(bare).words


def test_a_cloning_run_alone(tmp_path):
    write_cloning(tmp_path)
    page = page_of(tmp_path)
    assert page.all("section", "id") == ["learning", "time", "configuration"]
    assert "Cloning, by gradient steps" in page.words
    assert "Fine-tuning" not in page.words


def test_held_out_actions_are_told_and_drawn(tmp_path):
    write_cloning(tmp_path)
    write_jsonl(tmp_path, [{"step": 100 * step, "seconds": 1.0, "cloning/loss": 0.1, "held_out/error": 0.4 + 0.1 / step}
                           for step in (1, 2, 3)])  # fmt: skip
    write_held_out(tmp_path)
    page = page_of(tmp_path)
    assert page.all("section", "id") == ["learning", "held-out", "time", "configuration"]
    assert (
        "On 2 recorded episodes that training never saw, the policy's actions are off by 0.37 standard deviations on "
        "average; the mean action is off by 0.88." in page.words
    )
    assert "asked for its next 8 actions" in page.words
    labels = page.all("svg", "aria-label")
    assert labels[-2:] == ["reach [m]: recorded and predicted", "<b>turn</b>: recorded and predicted"]
    assert "off by 0.034 m" in page.words
    assert "in episodes 4, 19" in page.words
    assert "seconds" in page.words
    assert "Dashed: always predicting the mean action." in page.words


def test_without_a_rate_steps_are_counted(bare):
    write_held_out(bare, rate=None, execute_steps=1)
    words = page_of(bare).words
    assert "steps" in words
    assert "seconds" not in words
    assert "asked for its next 1 action, without noise" in words


def test_recorded_and_predicted_values_lie_at_their_times():
    """Two episodes: the second begins where the first ends, and a line sets them apart."""
    parts = [([0.0, 1.0, 2.0], [0.5, 0.5, 0.5]), ([3.0, 3.0], [2.0, 1.0])]
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "svg", lambda figure, description: figures.append(figure) or "")
        foretold_plot("reach", "", parts, rate=10.0)
    lines = [line.get_xydata().tolist() for line in figures[0].axes[0].lines]
    recorded = [[[0.0, 0.0], [0.1, 1.0], [0.2, 2.0]], [[0.3, 3.0], [0.4, 3.0]]]
    predicted = [[[0.0, 0.5], [0.1, 0.5], [0.2, 0.5]], [[0.3, 2.0], [0.4, 1.0]]]
    for expected in (*recorded, *predicted, [[0.25, 0.0], [0.25, 1.0]]):
        assert expected in lines


def test_a_finetuning_run_alone(tmp_path):
    write_finetuning(tmp_path)
    page = page_of(tmp_path)
    assert page.all("section", "id") == ["learning", "time", "configuration"]
    assert "of residual_ppo, success went from 31 % at the first evaluation to 97 % at the last." in page.words
    assert "Cloning" not in page.words


def test_a_run_stopped_at_its_start(bare):
    write_jsonl(bare / "finetuning", [{"step": 0, "seconds": 0.0, "evaluation/success": 0.3, "critic/loss": math.nan}])
    assert "success went from 30 %" in page_of(bare).words


@pytest.mark.parametrize("name", ["config.yaml", "finetuning/config.yaml"])
@pytest.mark.parametrize("algorithm", ["dppo", {"name": "dppo", "epochs": 5}])
def test_the_algorithm_is_named_by_either_configuration(bare, name, algorithm):
    write_jsonl(bare / "finetuning", [{"step": 0, "seconds": 0.0, "evaluation/success": 0.3}])
    (bare / name).write_text(yaml.safe_dump({"algorithm": algorithm}))
    assert "of dppo" in page_of(bare).words


def test_an_empty_log_is_no_log(bare):
    write_jsonl(bare / "finetuning", [])
    assert page_of(bare).all("section", "id") == ["configuration"]


def test_everything_is_escaped(pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    attack = "</pre></svg><script>alert('$x$')</script>"
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": attack}))
    (folder / "summary.json").write_text(json.dumps(SUMMARY | {"title": attack, "story": [attack], "machine": attack}))
    write_jsonl(folder / "finetuning", [{"step": 1, "seconds": 1.0, f"actor/{attack}": 1.0}])
    shutil.copy(folder / "videos" / "cloned_success_seed1.mp4", folder / "videos" / "<script>.mp4")
    page = page_of(folder)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.words.count(attack) >= 4


def test_a_wide_range_is_drawn_on_a_logarithmic_axis():
    metrics = [{"step": step, "critic/loss": 10.0**-step} for step in range(6)]
    svg = metric_plot(metrics, "critic/loss", "critic loss", "after")
    assert {"1", "0.01", "0.0001"} <= set(re.findall(r">([^<\n]+)</text>", svg))


def test_a_report_can_be_written_again(pipeline):
    assert write_report(pipeline).read_bytes() == write_report(pipeline).read_bytes()


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_a_run_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AlulaError, match=r"holds no run .* Give the folder"):
        write_report(tmp_path / name)


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "evaluation/cloned.json", "config.yaml"])
def test_a_damaged_file_is_named(bare, name):
    path: Path = bare / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"step": 1, "sec')
    with pytest.raises(AlulaError, match=rf"{name}' is not valid (JSON|YAML)"):
        write_report(bare)


def test_numbers_for_readers():
    def plain(texts):
        return [text.replace(NBSP, " ") for text in texts]

    assert plain(rate(share) for share in (0, 0.001, 0.29, 0.999, 1)) == ["0 %", "0.1 %", "29 %", "99.9 %", "100 %"]
    assert plain(duration(value) for value in (0.5, 45, 84, 7200)) == ["0.5 s", "45 s", "1.4 min", "2.0 h"]
    assert plain(count(number) for number in (3000, 600_000, 12_300_000)) == ["3,000", "0.6 M", "12 M"]
