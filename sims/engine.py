"""What every physics engine offers: a batch of states, and one control step of all of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.errors import ConfigError


@dataclass
class BatchState:
    """Physics of every environment as views into the engine's arrays: writing to them moves the simulation."""

    time: Float64[ndarray, " num_envs"]
    """Simulated seconds since the episode began."""
    qpos: Float64[ndarray, "num_envs nq"]
    qvel: Float64[ndarray, "num_envs nv"]
    ctrl: Float64[ndarray, "num_envs nu"]
    mocap_pos: Float64[ndarray, "num_envs nmocap 3"]
    mocap_quat: Float64[ndarray, "num_envs nmocap 4"]
    sensors: Float64[ndarray, "num_envs substeps nsensor"]
    """Sensor data of every substep of the last control step, each from before its integration."""
    extras: dict[str, ndarray]
    """Task-owned arrays, first axis the environment: part of the exact state, unknown to the engine."""

    def rows(self, env_ids: Int64[ndarray, " selected"]) -> "BatchState":
        """A copy that holds only the chosen environments: to look at, not to write to."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "extras"}
        extras = {name: array[env_ids] for name, array in self.extras.items()}
        return BatchState(**{name: array[env_ids] for name, array in arrays.items()}, extras=extras)


class Engine(ABC):
    """Physics of `num_envs` environments; their results do not depend on each other or on the size of the batch."""

    num_envs: int
    state: BatchState

    @abstractmethod
    def reset_to_model(self, env_ids: Int64[ndarray, " selected"]) -> None:
        """Put the chosen environments in the model's initial state, with sensors at zero."""

    @abstractmethod
    def advance(self) -> Bool[ndarray, " num_envs"]:
        """Advance every environment by one control step under `state.ctrl` and the mocap poses.

        Returns:
            Environments that diverged. Their physics is restored to what it was before this step, or to the
            model's initial state if that was beyond the engine's bounds already, so that all numbers stay finite; the
            caller must end their episodes.
        """

    @abstractmethod
    def get_state(self) -> dict[str, ndarray]:
        """Everything that decides the future, copied; the first axis of every array is the environment."""

    @abstractmethod
    def set_state(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `get_state`, exact to the bit."""

    def restore(self, saved: Mapping[str, ndarray], chosen: Bool[ndarray, " num_envs"]) -> None:
        """Put only the chosen environments back to `saved`."""
        current = self.get_state()
        self.set_state({name: _blend(chosen, saved[name], array) for name, array in current.items()})

    def vary(self, widths: Mapping[str, float]) -> Float64[ndarray, " factors"]:
        """From now on, multiply the model's parameters in each environment by its row of `state.extras["factors"]`.

        Args:
            widths: Half-widths of the factors by name of the parameter, as in `sims.config.Randomization`.

        Returns:
            Half-width of every factor, in the order of that row.

        Raises:
            ConfigError: this engine cannot.
        """
        raise ConfigError(
            f"task.randomization asks for varied {', '.join(widths)}, which {type(self).__name__} cannot do; set them "
            "to 0 or use an engine on MuJoCo"
        )

    @abstractmethod
    def close(self) -> None:
        """Free threads and memory."""


def _blend(chosen: Bool[ndarray, " num_envs"], yes: ndarray, no: ndarray) -> ndarray:
    return np.where(chosen.reshape(-1, *(1,) * (yes.ndim - 1)), yes, no)
