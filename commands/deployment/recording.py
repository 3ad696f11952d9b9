"""Every run on a device as an episode of a dataset: what was asked for, what was executed, and why the two differ.

Steps of the episode are what the policy saw and did, so that the dataset can be trained on like any other. Its stream
`device` has a sample for every control period, with everything that the governor was told and said: enough to ask
another governor the same, offline, and to get the same commands to the bit (`replaying.py`).
"""

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from numpy import ndarray

from alula.commands.deployment.spool import Spool
from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.schema import TIMESTAMP
from alula.datasets.store import EpisodeStore
from alula.real_robot.contract import DeviceSpec, Grip, Limits, Stop, Workspace
from alula.real_robot.governor import Reason
from alula.real_robot.loop import Tick

STREAM, ANSWERS = "device", "workspace"
"""Names of the streams of control periods, and of the workspace's answers."""
BLOCK = 4096
"""Control periods for which memory is reserved at once."""
REASONS = tuple(Reason)
"""Bit number 0 and following of the field `reasons`."""
NO_INTENT, NO_NUMBERS, NUMBERS = 0, 1, 2
"""Values of the field `intent`: nothing was wished, nothing that is an action, an action."""
INTERVENTION = FieldSpec("intervention", (), "bool")
"""Whether a person acted where something else was to."""
EXTRA = SpaceSpec((TIMESTAMP, INTERVENTION))
ANSWER_FIELDS = SpaceSpec((TIMESTAMP, FieldSpec("permitted", (), "bool")))

LARGE = 4096
"""Size of a field from which on a run's steps of it wait on the disk, not in memory [bytes]."""

Step = tuple[Mapping[str, ndarray | int], ndarray, int, bool]
"""Observation (the row, where a field is large), action, when, and whether a person intervened."""


def stream_fields(spec: DeviceSpec) -> SpaceSpec:
    """What is kept of every control period; the timestamp is when the command was made."""
    (action,) = spec.action.values()
    size, units, names = action.shape, action.units, action.element_names
    per_second = tuple(f"{unit}/s" for unit in units)

    def elements(name: str, unit: tuple[str, ...]) -> FieldSpec:
        return FieldSpec(name, size, "float64", unit, names, rate=spec.rate, allow_nan=True)

    def moment(name: str) -> FieldSpec:
        return FieldSpec(name, (), "int64", ("ns",), rate=spec.rate)

    def number(name: str, dtype: str) -> FieldSpec:
        return FieldSpec(name, (), dtype, rate=spec.rate)

    return SpaceSpec(
        (
            TIMESTAMP,
            number("start", "bool"),
            elements("position", units),
            elements("velocity", per_second),
            FieldSpec("valid", size, "bool", element_names=names, rate=spec.rate),
            number("sequence", "int64"),
            moment("received_ns"),
            number("faults", "int32"),
            number("intent", "int8"),
            moment("created_ns"),
            number("source", "int32"),
            number("intervention", "bool"),
            elements("requested", units),
            elements("executed", units),
            number("reasons", "int64"),
            number("emergency", "int32"),
            number("delivered", "bool"),
            moment("sent_ns"),
        )
    )


class Columns:
    """Rows of fields that arrive one at a time, in memory that is reserved in blocks.

    Args:
        fields: Of a row.
    """

    def __init__(self, fields: SpaceSpec) -> None:
        self.fields = fields
        self._blocks: list[list[ndarray]] = []
        self._free = 0

    def append(self, *values: Any) -> None:
        """One row, values in the order of the fields; takes microseconds."""
        if self._free == 0:
            self._blocks.append([np.empty((BLOCK, *field.shape), field.dtype) for field in self.fields.values()])
            self._free = BLOCK
        row = BLOCK - self._free
        for column, value in zip(self._blocks[-1], values, strict=True):
            column[row] = value
        self._free -= 1

    def arrays(self) -> dict[str, Shaped[ndarray, "rows *field"]]:
        """All rows, by field."""
        empty = [np.empty((0, *field.shape), field.dtype) for field in self.fields.values()]
        length = BLOCK * len(self._blocks) - self._free
        columns = zip(empty, *self._blocks, strict=True)
        return {name: np.concatenate(parts)[:length] for name, parts in zip(self.fields, columns, strict=True)}


class Table:
    """Values that repeat, by their numbers.

    Args:
        first: Number 0.
    """

    def __init__(self, first: Hashable) -> None:
        self._numbers: dict[Hashable, int] = {first: 0}

    def number(self, value: Hashable) -> int:
        """The value's number."""
        return self._numbers.setdefault(value, len(self._numbers))

    def values(self) -> list[Any]:
        """In the order of their numbers."""
        return list(self._numbers)


class NotedWorkspace:
    """A workspace whose answers are kept, for they decide what the governor does.

    Args:
        workspace: Asked.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.answers: list[Bool[ndarray, " points"]] = []
        """Since they were last taken."""

    def inside(self, positions: Float64[ndarray, "points action"]) -> Bool[ndarray, " points"]:
        """See `Workspace.inside`."""
        answer = self.workspace.inside(positions)
        self.answers.append(answer)
        return answer

    def free(self, way: Float64[ndarray, "places action"]) -> bool:
        """See `Workspace.free`."""
        answer = self.workspace.free(way)
        self.answers.append(np.array([answer]))
        return answer


class RunRecorder:
    """Keeps a run until it is over, then writes it as an episode.

    Pictures wait on the disk, without a name; the loop never waits for it. Killed in a run, it loses that run; a disk
    that is full is told of by `end`, when the robot is at rest, and `end` may be called again.

    Args:
        path: Dataset to make.
        spec: Of the device.
        observation: What the policy sees, or the task says: the fields of the steps.
        action: What it decides.
        metadata: About the whole dataset.
        source: Who is meant to act; a person who does instead intervenes.
        workspace: Where the device may be; give `workspace` to the loop instead.
        overwrite: Replace a dataset that is there already.

    Raises:
        DatasetError: something is there already, or the dataset cannot be written.
    """

    def __init__(
        self,
        path: Path,
        spec: DeviceSpec,
        observation: SpaceSpec,
        action: SpaceSpec,
        metadata: Mapping[str, Any],
        source: str = "policy",
        workspace: Workspace | None = None,
        overwrite: bool = False,
    ) -> None:
        self.spec, self.source = spec, source
        self.workspace = None if workspace is None else NotedWorkspace(workspace)
        self._unknown = np.full(len(spec.limits.low), np.nan)
        streams = {STREAM: stream_fields(spec), **({} if workspace is None else {ANSWERS: ANSWER_FIELDS})}
        about = {"device": spec.name, **metadata}
        self.store = EpisodeStore.create(
            path, observation, action, about, extra=EXTRA, streams=streams, overwrite=overwrite
        )
        self._large = [field for field in observation.values() if field.size * np.dtype(field.dtype).itemsize >= LARGE]
        self._spool = Spool((), path)
        self.begin({})

    def begin(self, metadata: Mapping[str, Any]) -> None:
        """A new episode; what is open is forgotten.

        Args:
            metadata: About the episode: seed, instruction, ...

        Raises:
            DatasetError: there is no room for its pictures.
        """
        self._metadata = dict(metadata)
        self._ticks = Columns(self.store.streams[STREAM])
        self._answers: list[tuple[int, Bool[ndarray, " points"]]] = []
        self._faults, self._sources, self._emergencies = Table(()), Table(""), Table(None)
        self._masks: dict[tuple[Reason, ...], int] = {}
        self._steps: list[Step] = []
        self._left_out = 0
        self._spool.close()
        try:
            self._spool = Spool(self._large, self.store.path)
        except OSError as error:
            raise self._no_room(error) from error

    def __call__(self, tick: Tick) -> None:
        """Keep a control period; all of a run, from its start to its rest."""
        state, intent, command, receipt = tick.state, tick.intent, tick.command, tick.receipt
        kind = NO_INTENT if intent is None else NO_NUMBERS if command.requested is None else NUMBERS
        source = "" if intent is None else intent.source
        if self.workspace is not None:
            self._take_answers(command.time_ns, tick.start)
        self._ticks.append(
            command.time_ns,
            tick.start,
            state.position,
            state.velocity,
            state.valid,
            state.sequence,
            state.received_ns,
            self._faults.number(state.faults),
            kind,
            # As the governor does, which does not believe in the future; and the clock has begun at 0.
            0 if intent is None else max(0, min(intent.created_ns, command.time_ns)),
            self._sources.number(source),
            self._intervenes(source),
            self._unknown if command.requested is None else command.requested,
            command.position,
            self._mask(command.reasons),
            self._emergencies.number(command.emergency),
            receipt.delivered,
            receipt.sent_ns,
        )

    def _intervenes(self, source: str) -> bool:
        return source == "teleoperation" != self.source

    def _mask(self, reasons: tuple[Reason, ...]) -> int:
        if reasons not in self._masks:
            self._masks[reasons] = sum(1 << REASONS.index(reason) for reason in set(reasons))
        return self._masks[reasons]

    def _take_answers(self, time_ns: int, start: bool) -> None:
        assert self.workspace is not None
        answers = self.workspace.answers
        # A start that was refused has left no period, but an answer.
        self._answers += [(time_ns, answer) for answer in (answers[-1:] if start else answers)]
        answers.clear()

    def step(
        self,
        observation: Mapping[str, Shaped[ndarray, "*field"]],
        action: Shaped[ndarray, " action"],
        created_ns: int,
        source: str = "policy",
    ) -> None:
        """Keep a step of the policy.

        Args:
            observation: What it saw.
            action: What it requested then.
            created_ns: When it saw that [ns].
            source: Who acted: "policy", "teleoperation", ...
        """
        if not self._teaches(observation, action):
            self._left_out += 1
            return
        large = {field.name for field in self._large}
        seen = {
            name: self._spool.append(name, observation[name]) if name in large else np.array(observation[name])
            for name in self.store.observation
        }
        self._steps.append((seen, np.array(action), created_ns, self._intervenes(source)))

    def end(self, success: bool, metadata: Mapping[str, Any]) -> None:
        """Write the episode.

        Steps in which something was not finite are left out, since nothing can be learnt from them; the stream has all.

        Args:
            success: Whether the task was done.
            metadata: Further metadata of the episode.

        Raises:
            DatasetError: it cannot be written. The episode is still there: `end` may be called again.
        """
        # A person's steps come as they are made, a policy's when its next one begins.
        steps = sorted(self._steps, key=lambda step: step[2])
        streams = {STREAM: self._ticks.arrays()}
        if self.workspace is not None:
            times = [np.full(len(answer), time_ns) for time_ns, answer in self._answers]
            answers = [answer for _, answer in self._answers]
            streams[ANSWERS] = {
                "timestamp": np.concatenate((np.empty(0, np.int64), *times)),
                "permitted": np.concatenate((np.empty(0, bool), *answers)),
            }
        about = {
            **self._metadata,
            **metadata,
            "source": self.source,
            "success": success,
            "steps_left_out": self._left_out,
            "run": {
                "device": describe_device(self.spec),
                "reasons": [str(reason) for reason in REASONS],
                "faults": [list(faults) for faults in self._faults.values()],
                "sources": self._sources.values(),
                "emergencies": self._emergencies.values(),
            },
        }
        try:
            arrays = self._arrays(steps, success)
        except OSError as error:
            raise self._no_room(error) from error
        self.store.append(Episode(arrays, about, streams))
        self.begin({})

    def _no_room(self, error: OSError) -> DatasetError:
        return DatasetError(f"pictures cannot be kept in '{self.store.path}': {error.strerror}; free some space")

    def _teaches(self, observation: Mapping[str, ndarray], action: ndarray) -> bool:
        """Whether everything in a step is what its field says, and finite."""
        values = {name: np.asarray(observation[name]) for name in self.store.observation}
        fields = {**self.store.observation, **self.store.action}
        return all(_fits(np.asarray(value), fields[name]) for name, value in {**values, "action": action}.items())

    def _arrays(self, steps: list[Step], success: bool) -> dict[str, Shaped[ndarray, "steps *field"]]:
        def stacked(values: list[Any], field: FieldSpec) -> ndarray:
            return np.array(values, dtype=field.dtype).reshape(-1, *field.shape)

        def seen(field: FieldSpec) -> ndarray:
            values = [step[0][field.name] for step in steps]
            if field not in self._large:
                return stacked(values, field)
            rows = self._spool.rows(field.name)
            return rows if values == list(range(len(rows))) else rows[np.array(values)]

        store, last = self.store, np.arange(len(steps)) == len(steps) - 1
        return {
            **{name: seen(field) for name, field in store.observation.items()},
            "action": stacked([step[1] for step in steps], store.action["action"]),
            "next.reward": np.where(last & success, 1.0, 0.0),
            "next.terminated": last & success,
            "next.truncated": last & (not success),
            "next.success": last & success,
            "timestamp": stacked([step[2] for step in steps], TIMESTAMP),
            "intervention": stacked([step[3] for step in steps], INTERVENTION),
        }


def _fits(value: ndarray, field: FieldSpec) -> bool:
    """Whether it is a value of the field, and finite."""
    if value.shape != field.shape or value.dtype.kind not in "fiub":
        return False
    with np.errstate(over="ignore"):
        return np.dtype(field.dtype).kind != "f" or bool(np.isfinite(value.astype(field.dtype, copy=False)).all())


def describe_device(spec: DeviceSpec) -> dict[str, Any]:
    """A specification as plain values; infinite limits become None."""
    limits = asdict(spec.limits)
    limits["following"] = [value if np.isfinite(value) else None for value in spec.limits.following]
    spaces = {"observation": spec.observation.to_list(), "action": spec.action.to_list()}
    return {**asdict(spec), **spaces, "limits": limits}


def described_device(values: Mapping[str, Any]) -> DeviceSpec:
    """Inverse of `describe_device`, also after a trip through JSON."""
    limits: dict[str, Any] = {
        name: tuple(np.inf if entry is None else entry for entry in value) if isinstance(value, list) else value
        for name, value in values["limits"].items()
    }
    return DeviceSpec(
        **{
            **values,
            "observation": SpaceSpec.from_list(values["observation"]),
            "action": SpaceSpec.from_list(values["action"]),
            "limits": Limits(**limits),
            "stops": tuple(Stop(stop) for stop in values["stops"]),
            "after_fault": Stop(values["after_fault"]),
            "grip": None if values["grip"] is None else Grip(**values["grip"]),
        }
    )
