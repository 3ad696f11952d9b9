"""The task's own view of a real robot: what is measured goes into a scene that never moves by itself.

A policy was trained on what a task's `observe` says of its simulated state. Here the same function is asked about a
state that was measured: joints or pose by the device, things by a tracking system. And an action becomes the device's
next position by the task's own `control`. So no convention is written twice, and a policy sees on a robot what it saw
in simulation, down to the bit if the world is the same.
"""

from abc import abstractmethod

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy import ndarray

from alula.commands.deployment.embodiment import Embodiment, Poses
from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.contract import DeviceSpec, State, Workspace
from alula.real_robot.workspace import ArmWorkspace
from alula.sims.robots.control import ArmControl
from alula.sims.task import Task
from alula.sims.tasks.quadcopter.base import QuadcopterTask
from alula.sims.vector import TaskVectorEnv

LEAD = 0.4
"""How far a commanded position may run ahead of a quadcopter [m]: our choice."""
RESPONSE = 2.7
"""Acceleration per error of the velocity [1/s]. Below a policy that commands velocities, a simulated drone closes the
loop by 4L / (s + 4L), with L = 1 / (1 + s/8) of its attitude. A real drone tracks positions, and overshoots a little
where its attitude lags: this is the response whose product with that comes nearest, around 4 rad/s."""
QUICKNESS = 40.0
"""Jerk per error of the acceleration [1/s]: our choice, as fast as lags by less than a control step or two."""
SHARE = 0.95
"""Of the device's limits that is used, so that the governor has nothing to change."""


class Twin(Embodiment):
    """A task's scene that is set to what was measured.

    Args:
        task: What the policy was trained on.
        spec: Of the device.
    """

    direct = False
    blend = 0.0

    def __init__(self, task: Task, spec: DeviceSpec) -> None:
        super().__init__(spec)
        self.task = task
        self.environment = TaskVectorEnv(task, 1, num_threads=1)
        self.scene = self.environment.engine.state

    def restart(self) -> None:
        """See `Embodiment.restart`."""
        self.environment.reset(seed=0)
        self._fresh = True
        self.resume()

    def observe(self, state: State, poses: Poses) -> dict[str, Float32[ndarray, " field"]]:
        """See `Embodiment.observe`."""
        self.measure(state)
        self.task.place(self.scene, {name: pose[None] for name, pose in poses.items()})
        self.task.forward(self.scene)
        if self._fresh:
            self.begin()
            self._fresh = False
        return {name: value[0] for name, value in self.task.observe(self.scene).items()}

    @abstractmethod
    def measure(self, state: State) -> None:
        """Write what the device measured into the scene."""

    @abstractmethod
    def begin(self) -> None:
        """Make what the task remembers agree with the first measurement of an episode."""


class ArmTwin(Twin):
    """One arm, joint by joint."""

    def __init__(self, task: Task, spec: DeviceSpec) -> None:
        super().__init__(task, spec)
        arms: list[ArmControl] = getattr(task, "arms", None) or [task.arm]  # type: ignore[attr-defined]
        self.arm = arms[0]
        self._joints = [index for index in range(len(spec.limits.low)) if not spec.grip or index != spec.grip.element]

    def workspace(self, box: list[float]) -> Workspace:
        """See `Embodiment.workspace`."""
        if len(box) != 6:
            raise ConfigError(
                f"box has {len(box)} numbers; it needs x, y, z of its lowest and of its highest corner [m]"
            )
        (x, y, z, top_x, top_y, top_z), names = box, iter(self.arm.robot.joint_names(self.arm.prefix))
        joints = [[next(names)] if element in self._joints else [] for element in range(len(self.spec.limits.low))]
        corners = (x, y, z), (top_x, top_y, top_z)
        return ArmWorkspace(self.task.model, joints, self.arm.tool_site, corners)

    def measure(self, state: State) -> None:
        """Joints, gripper, and forces at the tool where they are measured."""
        scene, arm, grip = self.scene, self.arm, self.spec.grip
        scene.qpos[0, arm.qpos] = state.position[self._joints]
        scene.qvel[0, arm.qvel] = state.velocity[self._joints]
        if grip is not None:
            share = (state.position[grip.element] - grip.closed) / (grip.opened - grip.closed)
            for finger, _ in arm.fingers:
                scene.qpos[0, finger] = arm.robot.gripper.stroke * np.clip(share, 0.0, 1.0)
        if "observation.wrench" in state.observation:
            scene.sensors[0] = state.observation["observation.wrench"]

    def resume(self) -> None:
        """The commanded pose will be where the tool is."""
        self._fresh = True

    def begin(self) -> None:
        """The commanded pose is where the tool is."""
        scene, arm = self.scene, self.arm
        arm.start(scene, np.array([0]), scene.qpos[:, arm.qpos], arm.chain.forward(scene.qpos[:, arm.qpos]))
        self.task.forward(scene)

    def wish(self, action: Float[ndarray, " action"], state: State) -> Float64[ndarray, " position"]:
        """The joint targets that the task's servos would get."""
        self.task.control(self.scene, action[None])
        wish = state.position.copy()
        wish[self._joints] = self.scene.ctrl[0, self.arm.ctrl]
        if (grip := self.spec.grip) is not None:
            _, finger = self.arm.fingers[0]
            share = self.scene.ctrl[0, finger] / self.arm.robot.gripper.stroke
            wish[grip.element] = grip.closed + share * (grip.opened - grip.closed)
        return wish


class QuadcopterTwin(Twin):
    """One quadcopter, by its pose."""

    task: QuadcopterTask

    def resume(self) -> None:
        """The way on begins where the drone is."""
        self._reference: ndarray | None = None

    def measure(self, state: State) -> None:
        """Pose, velocity and body rates."""
        if not self._fresh:
            self.task.commit(self.scene)
        measured = state.observation["observation.state"]
        self.scene.qpos[0], self.scene.qvel[0] = measured[:7], measured[7:]

    def begin(self) -> None:
        """What is counted begins here."""
        if "before" in self.scene.extras:
            self.scene.extras["before"][:] = self.scene.qpos[:, :3]
            self.scene.extras["passed"][:] = 0.0

    def wish(self, action: Float[ndarray, " action"], state: State) -> Float64[ndarray, " position"]:
        """The position that is commanded, or to which the commanded velocity leads."""
        if self.task.config.action_mode == "position":
            return action.astype(np.float64)
        period = 1.0 / self.task.control_rate
        if self._reference is None:
            self._reference = np.stack([state.position, np.zeros(4), np.zeros(4)])
        position, velocity, acceleration = self._reference
        limits = self.spec.limits
        wanted = np.clip(RESPONSE * (action - velocity), *_either_way(limits.acceleration))
        jerk = np.clip(QUICKNESS * (wanted - acceleration), *_either_way(limits.jerk))
        acceleration = acceleration + jerk * period
        velocity = np.clip(velocity + acceleration * period, *_either_way(limits.velocity))
        ahead = position + velocity * period - state.position
        ahead[:3] *= min(1.0, LEAD / max(float(np.linalg.norm(ahead[:3])), LEAD))
        self._reference = np.stack([state.position + ahead, velocity, acceleration])
        return self._reference[0]


def _either_way(bounds: tuple[float, ...]) -> tuple[ndarray, ndarray]:
    most = SHARE * np.array(bounds)
    return -most, most


DEPLOYABLE_MODES = ("position", "velocity")
"""What a quadcopter's policy may command here: what the governor can judge before it is flown."""


def make_twin(task: Task, spec: DeviceSpec) -> Twin:
    """The twin that fits the task.

    Raises:
        DeviceError: the task has no robot that a device could be, or its actions cannot be governed.
    """
    if isinstance(task, QuadcopterTask):
        mode = task.config.action_mode
        if mode not in DEPLOYABLE_MODES or task.num_drones != 1:
            raise DeviceError(
                f"the policy commands {mode} of {task.num_drones} drones; on a device it may command the "
                f"{' or '.join(DEPLOYABLE_MODES)} of one, which can be kept inside the fence: train it with "
                "task.action_mode=velocity"
            )
        return QuadcopterTwin(task, spec)
    if hasattr(task, "arm") or len(getattr(task, "arms", ())) == 1:
        return ArmTwin(task, spec)
    raise DeviceError(f"the task {type(task).__name__} has no single arm or quadcopter that could be {spec.name}")
