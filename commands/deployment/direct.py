"""For policies that have learnt from recordings of the device: they see what it measures, and say where it goes."""

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray

from alula.commands.deployment.embodiment import Embodiment, Poses
from alula.commands.deployment.twin import make_twin
from alula.core.spaces import SpaceSpec
from alula.real_robot.contract import DeviceSpec, State, Workspace
from alula.sims.tasks.tabletop.config import ReachConfig
from alula.sims.tasks.tabletop.reach import Reach


class Direct(Embodiment):
    """Measurements and positions of the device, as they are.

    Args:
        observation: What the policy sees beside pictures; the device must measure all of it.
        spec: Of the device.
        robot: Name of the simulated robot that the device is, if there is one.
    """

    direct = True
    blend = 1.0  # an action of a recording is where the device was by the end of its step, having been on the way

    def __init__(self, observation: SpaceSpec, spec: DeviceSpec, robot: str | None) -> None:
        super().__init__(spec)
        self.observation, self.robot = observation, robot

    def restart(self) -> None:
        """There is nothing to forget."""

    def resume(self) -> None:
        """There is nothing to forget."""

    def observe(self, state: State, poses: Poses) -> dict[str, Shaped[ndarray, "*field"]]:
        """See `Embodiment.observe`."""
        return {name: state.observation[name].astype(field.dtype) for name, field in self.observation.items()}

    def wish(self, action: Float[ndarray, " action"], state: State) -> Float64[ndarray, " position"]:
        """The action itself."""
        return action.astype(np.float64)

    def workspace(self, box: list[float]) -> Workspace:
        """See `Embodiment.workspace`."""
        if self.robot is None:
            return super().workspace(box)
        # The model of any task says where the tool is; this one has nothing else in it.
        return make_twin(Reach(ReachConfig(robot=self.robot)), self.spec).workspace(box)
