"""MuJoCo models that differ from environment to environment."""

from collections.abc import Mapping
from copy import copy

import mujoco
import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray


class ModelVariation:
    """One MuJoCo model per environment, whose parameters are those of the original times factors.

    Args:
        model: The original.
        num_envs: Number of copies.
        widths: Half-widths of the factors by name, as in `Randomization.physics`.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, widths: Mapping[str, float]) -> None:
        self.original = model
        self.models = [copy(model) for _ in range(num_envs)]
        sizes = {"mass": model.nbody, "friction": model.ngeom, "damping": model.nv, "actuator_gain": model.nu}
        ends = np.cumsum([sizes[name] for name in widths])
        self._parts = {name: slice(end - sizes[name], end) for name, end in zip(widths, ends.tolist(), strict=True)}
        self.widths: Float64[ndarray, " factors"] = np.concatenate(
            [np.full(sizes[name], width) for name, width in widths.items()]
        )
        self._applied = np.ones((num_envs, len(self.widths)))

    def apply(self, factors: Float64[ndarray, "num_envs factors"], scratch: mujoco.MjData) -> None:
        """Bring every copy whose factors have changed up to date."""
        for env in np.flatnonzero((factors != self._applied).any(axis=1)):
            self._apply(self.models[env], factors[env], scratch)
        self._applied[:] = factors

    def _apply(self, model: mujoco.MjModel, factors: Float[ndarray, " factors"], scratch: mujoco.MjData) -> None:
        original, part = self.original, {name: factors[where] for name, where in self._parts.items()}
        if "mass" in part:
            model.body_mass[:] = original.body_mass * part["mass"]
            model.body_inertia[:] = original.body_inertia * part["mass"][:, None]
        if "friction" in part:
            model.geom_friction[:, 0] = original.geom_friction[:, 0] * part["friction"]
        if "damping" in part:
            model.dof_damping[:] = original.dof_damping * part["damping"]
        if "actuator_gain" in part:
            # A position servo's bias holds the same gain with the opposite sign: both change, or it would miss its aim.
            model.actuator_gainprm[:] = original.actuator_gainprm * part["actuator_gain"][:, None]
            model.actuator_biasprm[:] = original.actuator_biasprm * part["actuator_gain"][:, None]
        mujoco.mj_setConst(model, scratch)
