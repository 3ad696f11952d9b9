"""One environment of a suite, reduced to what an engine needs, and the exact state of those on MuJoCo."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float64, UInt64
from numpy import ndarray

INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION.value
"""All that MuJoCo's next step depends on, the solver's warm start, mocap poses and the clock included."""
DERIVED = ("xpos", "xquat", "xmat", "xipos", "ximat", "site_xpos", "site_xmat", "geom_xpos", "geom_xmat", "cvel")
"""What a step leaves in `MjData` beside that, one substep old: suites compute actions and observations from it."""
FIXTURES = ("body_pos", "body_quat", "site_pos", "site_quat")
"""What suites write into `MjModel` at resets."""
DIVERGENCE = [
    mujoco.mjtWarning.mjWARN_BADQPOS.value,
    mujoco.mjtWarning.mjWARN_BADQVEL.value,
    mujoco.mjtWarning.mjWARN_BADQACC.value,
]


@dataclass
class Outcome:
    """What an environment says after a step."""

    observation: Float64[ndarray, " numbers"]
    """In the suite's own order."""
    reward: float
    success: bool
    terminated: bool


class Pose(NamedTuple):
    """What the task's scene shows of an environment."""

    qpos: ndarray
    qvel: ndarray
    mocap_pos: ndarray
    mocap_quat: ndarray


class Original(ABC):
    """One environment of a suite."""

    diverged: bool = False
    """Whether physics gave up since the episode began."""

    @abstractmethod
    def begin(self, seed: int) -> Float64[ndarray, " numbers"]:
        """Start the episode of a seed, whatever was before; returns its first observation."""

    @abstractmethod
    def step(self, action: Float64[ndarray, " action"]) -> Outcome:
        """Advance by one control step."""

    @abstractmethod
    def pose(self) -> Pose:
        """Where everything is."""


class MujocoOriginal(Original):
    """One whose state is MuJoCo's, and numbers and a random stream in a Python object: all can be read and written.

    Args:
        environment: The suite's environment, with `model`, `data` and `action_space`.
        keeper: The object with the numbers and the random stream `np_random`.
        scene: What the task shows: the environment's bodies, and further ones behind them.
    """

    def __init__(self, environment: Any, keeper: Any, scene: mujoco.MjModel) -> None:
        self.environment, self.keeper, self.scene = environment, keeper, scene
        self.model, self.data = environment.model, environment.data
        shown = np.flatnonzero(scene.body_mocapid[: self.model.nbody] >= 0)
        self._carried = shown[self.model.body_mocapid[shown] >= 0]
        """Mocap bodies."""
        self._fixed = shown[self.model.body_mocapid[shown] < 0]
        """Bodies that resets place in the world; mocap bodies in the scene alone."""
        self.begin(0)
        self.step(np.zeros(environment.action_space.shape))  # some numbers do not exist before
        self._numbers = {name: value for name, value in sorted(vars(keeper).items()) if _is_number(value)}
        """Numbers of the keeper's own, as they are now: names, types and shapes."""

    @abstractmethod
    def marks(self) -> Float64[ndarray, "marks 3"]:
        """Positions of the scene's further mocap bodies: goals [m]."""

    @property
    def diverged(self) -> bool:  # type: ignore[override]
        """MuJoCo puts what diverges back into the initial state, and counts."""
        return any(self.data.warning[kind].number for kind in DIVERGENCE)

    def pose(self) -> Pose:
        """Positions, velocities, mocap bodies, fixtures and goals."""
        scene, model, data = self.scene, self.model, self.data
        position, orientation = np.zeros((scene.nmocap, 3)), np.tile([1.0, 0.0, 0.0, 0.0], (scene.nmocap, 1))
        fixed, carried = scene.body_mocapid[self._fixed], scene.body_mocapid[self._carried]
        position[fixed], orientation[fixed] = model.body_pos[self._fixed], model.body_quat[self._fixed]
        ids = model.body_mocapid[self._carried]
        position[carried], orientation[carried] = data.mocap_pos[ids], data.mocap_quat[ids]
        marks = self.marks()
        position[scene.nmocap - len(marks) :] = marks
        return Pose(data.qpos, data.qvel, position, orientation)

    def place(self, pose: Pose) -> None:
        """Make positions, velocities and mocap bodies those of `pose`; does nothing where they are already."""
        data, ids = self.data, self.model.body_mocapid[self._carried]
        carried = self.scene.body_mocapid[self._carried]
        wanted = (pose.qpos, pose.qvel, pose.mocap_pos[carried], pose.mocap_quat[carried])
        present = (data.qpos, data.qvel, data.mocap_pos[ids], data.mocap_quat[ids])
        if all(np.array_equal(*pair) for pair in zip(wanted, present, strict=True)):
            return
        data.qpos[:], data.qvel[:], data.mocap_pos[ids], data.mocap_quat[ids] = wanted
        mujoco.mj_forward(self.model, data)

    def save(self) -> dict[str, ndarray]:
        """Everything that decides the future, copied."""
        integration = np.zeros(mujoco.mj_stateSize(self.model, INTEGRATION))
        mujoco.mj_getState(self.model, self.data, integration, INTEGRATION)
        return {
            "integration": integration,
            "derived": _flat(getattr(self.data, name) for name in DERIVED),
            "fixtures": _flat(getattr(self.model, name) for name in FIXTURES),
            "numbers": np.concatenate([self._read(name) for name in self._numbers]),
            "random": _stream(self.keeper.np_random),
        }

    def load(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `save`, exact to the bit."""
        _fill([getattr(self.model, name) for name in FIXTURES], saved["fixtures"])
        mujoco.mj_setState(self.model, self.data, saved["integration"], INTEGRATION)
        mujoco.mj_forward(self.model, self.data)  # contacts, for whoever asks before the next step
        mujoco.mj_setState(self.model, self.data, saved["integration"], INTEGRATION)
        _fill([getattr(self.data, name) for name in DERIVED], saved["derived"])
        sizes = [np.size(template) for template in self._numbers.values()]
        parts = np.split(saved["numbers"], np.cumsum(sizes)[:-1])
        for (name, template), numbers in zip(self._numbers.items(), parts, strict=True):
            setattr(self.keeper, name, _like(template, numbers))
        _set_stream(self.keeper.np_random, saved["random"])

    def _read(self, name: str) -> Float64[ndarray, " size"]:
        """A number of the keeper, or several; NaN for None: not set in this episode yet."""
        value, size = getattr(self.keeper, name), np.size(self._numbers[name])
        return np.full(size, np.nan) if value is None else np.asarray(value, dtype=np.float64).reshape(size)


def _is_number(value: Any) -> bool:
    if isinstance(value, ndarray):
        owner: Any = value
        while isinstance(owner.base, ndarray):
            owner = owner.base
        return owner.base is None and value.dtype.kind in "biuf"
    return isinstance(value, bool | int | float | np.number | np.bool_)


def _flat(arrays: Iterable[ndarray]) -> Float64[ndarray, " size"]:
    return np.concatenate([array.ravel() for array in arrays])


def _fill(arrays: Sequence[ndarray], numbers: Float64[ndarray, " size"]) -> None:
    """Inverse of `_flat`, in place."""
    start = 0
    for array in arrays:
        array[...] = numbers[start : start + array.size].reshape(array.shape)
        start += array.size


def _like(template: Any, numbers: Float64[ndarray, " size"]) -> Any:
    """The numbers as an array or a scalar of the template's type; None where they are NaN."""
    if np.isnan(numbers).all():
        return None
    if isinstance(template, ndarray):
        return numbers.astype(template.dtype).reshape(template.shape)
    value = float(numbers[0])
    return value if isinstance(template, int) and not value.is_integer() else type(template)(value)


def _stream(generator: np.random.Generator) -> UInt64[ndarray, " 6"]:
    """State of PCG64."""
    state = generator.bit_generator.state
    words = [state["state"][name] >> shift & (1 << 64) - 1 for name in ("state", "inc") for shift in (0, 64)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def _set_stream(generator: np.random.Generator, words: UInt64[ndarray, " 6"]) -> None:
    low, high, inc_low, inc_high, has, integer = (int(word) for word in words)
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has,
        "uinteger": integer,
    }
