"""A dataset as a recording for the viewer rerun (https://rerun.io), which the extra `rerun` installs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.datasets.images import encode_png
from alula.datasets.store import EpisodeStore

Report = Callable[[int, int], None]
"""Told how many episodes are done, of how many."""
IMAGE_AXES, COLORS = 3, 3


def write_rerun(store: EpisodeStore, path: Path, report: Report = lambda done, total: None) -> None:
    """Write all episodes into one file, each below a path of its own: `episode_0/action`, `episode_0/streams/imu/gyro`.

    Colour images are written as PNG, exact to the pixel; of all other fields each element becomes a line of float64.
    Steps are on the timeline `step`, and what has a clock is on `time`.

    Args:
        store: The dataset.
        path: The `.rrd` file; one that is there is replaced.
        report: Told after every episode.

    Raises:
        DatasetError: rerun is not installed, or the dataset is damaged.
    """
    rerun = load_rerun()
    stream = rerun.RecordingStream("alula", recording_id=store.fingerprint)
    stream.save(path)
    recording = _Recording(rerun, stream)
    for index in range(store.num_episodes):
        episode, name = store.episode(index), f"episode_{index}"
        if "instruction" in episode.metadata:
            stream.log(f"{name}/instruction", rerun.TextDocument(episode.metadata["instruction"]), static=True)
        steps = [rerun.TimeColumn("step", sequence=np.arange(episode.length))]
        recording.log(name, store.fields, episode.steps, steps)
        for label, samples in episode.streams.items():
            recording.log(f"{name}/streams/{label}", store.streams[label], samples, [])
        report(index + 1, store.num_episodes)
    stream.disconnect()


def load_rerun() -> Any:
    """The package, which is optional.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        return import_module("rerun")
    except ImportError as error:
        raise DatasetError(
            f"the viewer's package is missing ({error}); install it with pip install 'alula[rerun]', or with "
            f"pip install rerun-sdk"
        ) from error


@dataclass
class _Recording:
    """An open file."""

    rerun: Any
    """The package."""
    stream: Any
    """Its RecordingStream."""

    def log(
        self, path: str, fields: SpaceSpec, arrays: dict[str, Shaped[ndarray, "times ..."]], timelines: list[Any]
    ) -> None:
        """Everything that has the same times."""
        if "timestamp" in arrays:
            timelines = [
                *timelines,
                self.rerun.TimeColumn("time", duration=arrays["timestamp"].astype("timedelta64[ns]")),
            ]
        for field in fields.values():
            values = arrays[field.name]
            if field.name == "timestamp" or not len(values):
                continue
            self.stream.send_columns(f"{path}/{field.name}", indexes=timelines, columns=self._columns(field, values))
            if len(field.element_names) == field.size:
                names = self.rerun.SeriesLines(names=list(field.element_names))
                self.stream.log(f"{path}/{field.name}", names, static=True)

    def _columns(self, field: FieldSpec, values: Shaped[ndarray, "times *field"]) -> Any:
        if field.dtype == "uint8" and len(field.shape) == IMAGE_AXES and field.shape[-1] == COLORS:
            files = [encode_png(image) for image in values]
            return self.rerun.EncodedImage.columns(blob=files, media_type=["image/png"] * len(files))
        return self.rerun.Scalars.columns(scalars=values.reshape(len(values), field.size).astype(np.float64))
