"""Adapter: Gymnasium-Robotics' AdroitHandDoor on the batched engine, with its observations and rewards.

The door's position is random per episode. There it is written into the model; here the door's frame becomes a mocap
body, so that all environments share one model. Original task: Rajeswaran et al. 2018, "Learning complex dexterous
manipulation with deep reinforcement learning and demonstrations".
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.core.seeding import BatchRng
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.sims.engine import BatchState
from alula.sims.task import Task
from alula.sims.tasks.adroit_door.config import AdroitDoorConfig

SUCCESS_ANGLE = 1.35
"""Door angle from which the original counts success [rad]."""
DOOR_RANGE = ((-0.3, -0.2), (0.25, 0.35), (0.252, 0.35))
"""Range of the door frame's x, y and z [m]."""
HAND_JOINTS = 28

OBSERVATION = SpaceSpec(
    (
        FieldSpec(name="observation.state", shape=(27,), units=("rad",)),
        FieldSpec(
            name="observation.environment_state",
            shape=(12,),
            element_names=(
                *("latch", "door"),
                *(f"{point}_{axis}" for point in ("palm", "handle", "palm_from_handle") for axis in "xyz"),
                "door_open",
            ),
            units=("rad", "rad", *("m",) * 9, "1"),
        ),
    )
)


def build_model() -> mujoco.MjModel:
    """Gymnasium-Robotics' model, with the door frame movable and the two points of interest as sensors.

    Raises:
        ConfigError: Gymnasium-Robotics is not installed.
    """
    package = find_spec("gymnasium_robotics")
    if package is None or package.origin is None:
        raise ConfigError(
            "task=adroit_door needs the models of Gymnasium-Robotics, which is not installed: "
            "pip install 'alula[suites]'"
        )
    spec = mujoco.MjSpec.from_file(str(Path(package.origin).parent / "envs/assets/adroit_hand/adroit_door.xml"))
    spec.body("frame").mocap = True
    for site in ("S_grasp", "S_handle"):
        spec.add_sensor(
            name=site, type=mujoco.mjtSensor.mjSENS_FRAMEPOS, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site
        )
    model = spec.compile()
    # The original turns wrist and fingers into position servos of these gains after loading the file.
    for first, last, gain in (("A_WRJ1", "A_WRJ0", 10.0), ("A_FFJ3", "A_THJ0", 1.0)):
        servos = slice(model.actuator(first).id, model.actuator(last).id + 1)
        model.actuator_gainprm[servos, :3] = (gain, 0, 0)
        model.actuator_biasprm[servos, :3] = (0, -gain, 0)
    return model


class AdroitDoor(Task):
    """28 normalised actuator targets at 100 Hz; observations, rewards and success as in AdroitHandDoor-v1.

    Palm and handle positions are, as in the original, those of the last substep's beginning.
    """

    substeps = 5
    camera = "fixed"
    observation = OBSERVATION

    def __init__(self, config: AdroitDoorConfig) -> None:
        self.config = config
        self.randomization = config.randomization
        self.model = build_model()
        self.max_episode_steps = config.max_episode_steps
        ctrl_range = self.model.actuator_ctrlrange
        self.center, self.half_range = ctrl_range.mean(axis=1), 0.5 * np.diff(ctrl_range)[:, 0]
        self.frame = int(self.model.body("frame").mocapid[0])
        self.door = int(self.model.joint("door_hinge").qposadr[0])
        self.palm, self.handle = (
            slice(int(self.model.sensor(site).adr[0]), int(self.model.sensor(site).adr[0]) + 3)
            for site in ("S_grasp", "S_handle")
        )
        # Where palm and handle are in the initial posture: the handle moves with the frame, the palm does not.
        data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, data)
        self.initial_palm = data.site("S_grasp").xpos.copy()
        self.initial_handle_from_frame = data.site("S_handle").xpos - data.mocap_pos[self.frame]
        self.action = SpaceSpec(
            (
                FieldSpec(
                    name="action",
                    shape=(self.model.nu,),
                    low=(-1.0,),
                    high=(1.0,),
                    control_mode=ControlMode.JOINT_POSITION_ABSOLUTE,
                    rate=self.control_rate,
                ),
            )
        )

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Hand at rest, door frame somewhere in its range."""
        for axis, (low, high) in enumerate(DOOR_RANGE):
            state.mocap_pos[env_ids, self.frame, axis] = rng.uniform(env_ids, low, high, 1)[:, 0]
        state.sensors[env_ids, -1, self.palm] = self.initial_palm
        state.sensors[env_ids, -1, self.handle] = state.mocap_pos[env_ids, self.frame] + self.initial_handle_from_frame

    def control(self, state: BatchState, action: Float[ndarray, "num_envs 28"]) -> None:
        """Scale to each actuator's range."""
        state.ctrl[:] = self.center + action * self.half_range

    def observe(self, state: BatchState) -> dict[str, Float32[ndarray, "num_envs field"]]:
        """The 39 numbers of the original, hand first."""
        palm, handle = state.sensors[:, -1, self.palm], state.sensors[:, -1, self.handle]
        environment = np.empty((len(palm), 12), dtype=np.float32)
        environment[:, 0], environment[:, 1] = state.qpos[:, -1], state.qpos[:, self.door]
        environment[:, 2:5], environment[:, 5:8], environment[:, 8:11] = palm, handle, palm - handle
        environment[:, 11] = np.where(state.qpos[:, self.door] > 1.0, 1.0, -1.0)
        return {
            "observation.state": state.qpos[:, 1:HAND_JOINTS].astype(np.float32),
            "observation.environment_state": environment,
        }

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """The door stands open."""
        return state.qpos[:, self.door] >= SUCCESS_ANGLE

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """Success, or the original's shaped reward."""
        if self.config.reward == "sparse":
            return success.astype(float)
        angle = state.qpos[:, self.door]
        reach = np.linalg.norm(state.sensors[:, -1, self.palm] - state.sensors[:, -1, self.handle], axis=1)
        bonus = 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > SUCCESS_ANGLE)
        return 0.1 * reach - 0.1 * (angle - 1.57) ** 2 - 1e-5 * (state.qvel**2).sum(axis=1) + bonus

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """On success with the sparse reward; never with the shaped one, as in the original."""
        del state
        return success & (self.config.reward == "sparse")

    def expert(self, noise: float, seed: int) -> NoReturn:
        """There is none.

        Raises:
            ConfigError: always; people demonstrated this task.
        """
        raise ConfigError(
            "task=adroit_door has no scripted expert; give human demonstrations instead: data=adroit_door_human.npz"
        )
