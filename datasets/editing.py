"""Datasets made of others: merged, split, filtered, grouped otherwise on disk; and labels changed in place.

Every new dataset is built beside its place and takes it only when it is complete; its sources are only read. Arrays
and videos are copied as they are, a few episodes in memory at a time. With `overwrite`, a target may replace its own
source: until the last moment the old dataset is there, from then on the new one.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alula.core.errors import DatasetError
from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.arrays import Chunking
from alula.datasets.commits import EPISODES_FILE, CommitLog, replace_file, sync
from alula.datasets.drafts import building
from alula.datasets.schema import plain, read_schema, require_same_fields
from alula.datasets.store import EpisodeStore

BATCH_BYTES = 64 * 2**20
"""Copied at a time: enough that short episodes do not wait for the disk one by one."""

Metadata = dict[str, Any]


def merge(sources: Sequence[EpisodeStore], target: Path, *, overwrite: bool = False) -> EpisodeStore:
    """All episodes of several datasets, behind each other.

    Metadata on which all agree are kept. Under `merged_from` stand, of each source, its name, its number of episodes
    and the metadata on which it differs.

    Args:
        sources: Datasets of the same fields.
        target: Folder of the new dataset.
        overwrite: Replace a dataset that is there already.

    Raises:
        SpecError: fields differ; the message names them.
        DatasetError: there are no sources, one is damaged, or the target cannot be written.
    """
    if not sources:
        raise DatasetError("there are no datasets to merge; give at least one")
    first = sources[0]
    for other in sources[1:]:
        require_same_fields(first.contents, other.contents, str(first.path), str(other.path))
    common = {
        key: value
        for key, value in first.metadata.items()
        if all(key in other.metadata and other.metadata[key] == value for other in sources)
    }
    origins = [
        {
            "name": source.path.name,
            "episodes": source.num_episodes,
            "metadata": {key: value for key, value in source.metadata.items() if key not in common},
        }
        for source in sources
    ]
    with building(target, overwrite) as draft:
        store = _like(first, draft, {**common, "merged_from": origins})
        for source in sources:
            _copy(source, store, range(source.num_episodes))
    return EpisodeStore.open(target)


def select(source: EpisodeStore, target: Path, indices: Sequence[int], *, overwrite: bool = False) -> EpisodeStore:
    """These episodes, in this order.

    Args:
        source: Dataset.
        target: Folder of the new dataset.
        indices: Episodes to keep, counted from 0.
        overwrite: Replace a dataset that is there already.

    Raises:
        DatasetError: there is no such episode, the source is damaged, or the target cannot be written.
    """
    _require_episodes(source, indices)
    with building(target, overwrite) as draft:
        _copy(source, _like(source, draft), indices)
    return EpisodeStore.open(target)


def delete(source: EpisodeStore, target: Path, indices: Iterable[int], *, overwrite: bool = False) -> EpisodeStore:
    """All episodes but these; for arguments and errors see `select`."""
    dropped = set(indices)
    _require_episodes(source, dropped)
    kept = [index for index in range(source.num_episodes) if index not in dropped]
    return select(source, target, kept, overwrite=overwrite)


def filter_episodes(
    source: EpisodeStore, target: Path, keep: Callable[[Episode], bool], *, overwrite: bool = False
) -> EpisodeStore:
    """The episodes of which `keep` says True; for errors see `select`.

    Where metadata decide alone, `select` with indices from `EpisodeStore.episode_metadata` is quicker.
    """
    kept = [index for index in range(source.num_episodes) if keep(source.episode(index))]
    return select(source, target, kept, overwrite=overwrite)


def split(source: EpisodeStore, parts: Mapping[Path, Sequence[int]], *, overwrite: bool = False) -> list[EpisodeStore]:
    """Several datasets of one; either all of them are made or none.

    Args:
        source: Dataset.
        parts: For each new folder its episodes. One episode goes to one part at most.
        overwrite: Replace datasets that are there already.

    Raises:
        DatasetError: an episode does not exist or is in two parts, the source is damaged, or a target cannot be
            written.
    """
    chosen = [index for indices in parts.values() for index in indices]
    _require_episodes(source, chosen)
    repeated = sorted(index for index, count in Counter(chosen).items() if count > 1)
    if repeated:
        raise DatasetError(f"episodes {repeated} are in more than one part; each may go to one part at most")
    with ExitStack() as stack:
        for target, indices in parts.items():
            draft = stack.enter_context(building(target, overwrite))
            _copy(source, _like(source, draft), indices)
    return [EpisodeStore.open(target) for target in parts]


def random_parts(num_episodes: int, fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Episodes shared out by chance, for `split`: each list sorted, every episode in one list.

    Args:
        num_episodes: How many there are.
        fractions: Share of each part, in (0, 1]; together 1. Counts are rounded so that all episodes are used.
        seed: Equal seeds give equal parts.

    Raises:
        DatasetError: the fractions are no shares of 1, or a part would be empty.
    """
    if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DatasetError(f"fractions are {list(fractions)}; needed are positive numbers with the sum 1")
    ends = np.rint(np.cumsum(fractions) * num_episodes).astype(int)
    parts = np.split(np.random.default_rng(seed).permutation(num_episodes), ends[:-1])
    if any(len(part) == 0 for part in parts):
        raise DatasetError(
            f"of {num_episodes} episodes, fractions {list(fractions)} leave a part without any; use larger fractions"
        )
    return [sorted(part.tolist()) for part in parts]


def rechunk(source: EpisodeStore, target: Path, chunking: Chunking, *, overwrite: bool = False) -> EpisodeStore:
    """The same episodes, grouped otherwise on disk; for errors see `select`."""
    with building(target, overwrite) as draft:
        _copy(source, _like(source, draft, chunking=chunking), range(source.num_episodes))
    return EpisodeStore.open(target)


def relabel_episodes(path: Path, change: Callable[[int, Metadata], Metadata]) -> EpisodeStore:
    """Change the metadata of episodes (instruction, success, ...) in place, all at once or not at all.

    Args:
        path: Dataset.
        change: Given an episode's index and metadata, its new metadata.

    Raises:
        DatasetError: there is no dataset, another process is writing to it, it may not be written, or the new metadata
            are no plain values.
    """
    with _label(path) as log:
        log.replace(
            [
                replace(commit, metadata=plain(change(index, dict(commit.metadata)), f"episode {index}"))
                for index, commit in enumerate(log.commits)
            ]
        )
    return EpisodeStore.open(path)


def relabel_dataset(path: Path, change: Callable[[Metadata], Metadata]) -> EpisodeStore:
    """Change the metadata of the whole dataset (licence, provenance, ...) in place.

    Args:
        path: Dataset.
        change: Given the metadata, the new ones.

    Raises:
        DatasetError: as for `relabel_episodes`.
    """
    with _label(path):
        file = EpisodeStore.open(path).path / "zarr.json"
        group = json.loads(file.read_bytes())
        schema = group["attributes"]["alula"]
        schema["metadata"] = plain(change(schema["metadata"]), "the dataset")
        replace_file(file, json.dumps(group, indent=2).encode())
        sync(file.parent)
    return EpisodeStore.open(path)


@contextmanager
def _label(path: Path) -> Iterator[CommitLog]:
    """The dataset's log, while no other process may write."""
    folder = EpisodeStore.open(path).path
    log = CommitLog.read(folder / EPISODES_FILE, read_schema(folder)[0].streams)
    with log.writing():
        try:
            yield log
        except OSError as error:
            raise DatasetError(
                f"cannot write to dataset '{path}': {error.strerror}; nothing was changed. Free some space or check "
                f"the permissions"
            ) from error


def _like(
    source: EpisodeStore, target: Path, metadata: Metadata | None = None, chunking: Chunking | None = None
) -> EpisodeStore:
    """An empty dataset of the same fields."""
    return EpisodeStore.create(
        target,
        source.observation,
        source.action,
        source.metadata if metadata is None else metadata,
        extra=source.extra,
        streams=source.streams,
        video=source.video,
        chunking=chunking,
    )


def _copy(source: EpisodeStore, target: EpisodeStore, indices: Sequence[int]) -> None:
    """Add these episodes of `source` to `target`, a few at a time."""
    sizes = _episode_bytes(source)
    batch: list[int] = []
    for index in indices:
        if batch and sizes[batch].sum() + sizes[index] > BATCH_BYTES:
            target.copy_episodes(source, batch)
            batch = []
        batch.append(index)
    target.copy_episodes(source, batch)


def _episode_bytes(store: EpisodeStore) -> np.ndarray:
    """Uncompressed size of each episode."""
    sizes = store.lengths * _step_bytes(store.fields)
    for name, fields in store.streams.items():
        sizes = sizes + np.diff(store.stream_ends(name), prepend=0) * _step_bytes(fields)
    return sizes


def _step_bytes(fields: SpaceSpec) -> int:
    return sum(field.size * np.dtype(field.dtype).itemsize for field in fields.values())


def _require_episodes(store: EpisodeStore, indices: Iterable[int]) -> None:
    unknown = sorted(index for index in indices if not 0 <= index < store.num_episodes)
    if unknown:
        raise DatasetError(
            f"dataset '{store.path}' has no episodes {unknown}; allowed are 0 to {store.num_episodes - 1}"
        )
