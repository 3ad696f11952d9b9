"""Draws docs/pictures/demo.png from a finished demo: one episode before and after fine-tuning, and the curve between.

python docs/pictures/demo.py runs/demo-peg_insertion-residual_ppo-0
"""

import sys
from pathlib import Path

import av
import matplotlib.pyplot as plt
import numpy as np

from alula.training.run import read_metrics

FRAMES = 5


def strip(video: Path) -> np.ndarray:
    """Frames spread over an episode, side by side."""
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = np.linspace(0, len(frames) - 1, FRAMES).astype(int)
    return np.concatenate([frames[index][:, 50:-50] for index in chosen], axis=1)


def main() -> None:
    """Two film strips above each other, the curve beside them."""
    run = Path(sys.argv[1])
    figure = plt.figure(figsize=(13, 3.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.5, 1))
    rows = left.subplots(2, 1)
    seed = sorted((run / "videos").glob("cloned_failure_*"))[0].stem.split("_")[-1]
    captions = (("cloned_failure", "cloned: pressed against the rim"), ("finetuned_success", "fine-tuned: inserted"))
    for axes, (prefix, caption) in zip(rows, captions, strict=True):
        axes.imshow(strip(run / f"videos/{prefix}_{seed}.mp4"))
        axes.set_title(f"{caption} (same episode)", fontsize=11, loc="left")
        axes.axis("off")
    axes = right.subplots()
    scored = [line for line in read_metrics(run / "finetuning") if "evaluation/success" in line]
    minutes = [line["seconds"] / 60 for line in scored]
    axes.fill_between(
        minutes, *([100 * line[f"evaluation/{end}"] for line in scored] for end in ("low", "high")), alpha=0.2
    )
    axes.plot(minutes, [100 * line["evaluation/success"] for line in scored], "o-", markersize=4)
    axes.set(xlabel="minutes of RL on two CPU cores", ylabel="episodes solved [%]", ylim=(0, 102))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
