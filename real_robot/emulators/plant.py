"""The world that emulated robots act in: a simulated task in real time, with the motors at the emulator's hand.

Nothing here is random after `reset`, and nothing waits: `advance` lets as much time pass as has passed.

An episode: `reset` draws it and says where the robot should begin, with the scene's things out of the way; once the
robot is there, `begin` puts them where they belong; from then on `succeeded` and `crashed` are the task's judgement.
"""

import contextlib
import json
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from omegaconf import OmegaConf

from alula.sims.engine import BatchState
from alula.sims.quadcopters.action_modes import convert
from alula.sims.registry import TASKS, make_task
from alula.sims.robots.control import ArmControl
from alula.sims.tasks.quadcopter.base import QuadcopterTask
from alula.sims.vector import TaskVectorEnv

MOST_BEHIND_NS = 100_000_000
"""Time that is made up for at most [ns]; on a host that is later than that the robot slows down instead of jumping."""
TRACKING_PERIOD_NS = 20_000_000
"""Between two messages of the tracking system [ns]."""
AWAY = -10.0
"""Height of things that are out of the way [m]."""
RESTING_HEIGHT = 0.02
"""Of a quadcopter's centre while it stands on the floor [m]."""


class Plant(ABC):
    """A task's scene in real time.

    Args:
        task: Name in the table of tasks.
        settings: Of the task, where they differ from its defaults.
        tracker: Address "host:port" that gets the poses of the scene's things, as a tracking system would send them.
        view: Whether to show the scene in a window.
    """

    def __init__(self, task: str, settings: Mapping[str, Any], tracker: str | None = None, view: bool = False) -> None:
        schema = OmegaConf.structured(TASKS[task].config)
        self.task = make_task(OmegaConf.to_object(OmegaConf.merge(schema, dict(settings))))
        self.environment = TaskVectorEnv(self.task, 1, num_threads=1)
        self.succeeded = self.crashed = False
        self.began = False
        """Whether an episode is under way."""
        self._seed = self._time_ns = self._tracked_ns = 0
        self._tracker = None if tracker is None else _connected(tracker)
        self.model, self._picture = self.task.model, mujoco.MjData(self.task.model)
        self._viewer = _viewer(self.model, self._picture) if view else None
        self.environment.reset(seed=0)

    @property
    def state(self) -> BatchState:
        """What the task sees of the world; one environment."""
        return self.environment.engine.state

    @property
    @abstractmethod
    def step_ns(self) -> int:
        """Length of what `pass_step` lets pass [ns]."""

    @abstractmethod
    def pass_step(self) -> None:
        """Let a step pass, and look at success and crash after a control step of the task."""

    @abstractmethod
    def lay_out(self, away: bool) -> list[float]:
        """Draw the episode of the present seed without moving the robot; returns where it should begin.

        Args:
            away: Whether things are kept out of the way.
        """

    def reset(self, seed: int) -> list[float]:
        """Draw an episode; returns where the robot should begin, in the coordinates of its action."""
        self._seed, self.began = seed, False
        self.succeeded = self.crashed = False
        return self.lay_out(away=True)

    def begin(self) -> None:
        """Put the things where they belong."""
        self.lay_out(away=False)
        self.began = True

    def advance(self, now_ns: int) -> None:
        """Let the time pass that has passed."""
        self._time_ns = max(self._time_ns, now_ns - MOST_BEHIND_NS)
        while self._time_ns + self.step_ns <= now_ns:
            self.pass_step()
            self._time_ns += self.step_ns
        if now_ns - self._tracked_ns >= TRACKING_PERIOD_NS:
            self._tracked_ns = now_ns
            self._publish()

    def judge(self) -> None:
        """Ask the task how it stands."""
        if self.began:
            success = self.task.success(self.state)
            self.succeeded |= bool(success[0])
            self.crashed |= bool(self.task.terminated(self.state, success & False)[0])

    def close(self) -> None:
        """Tell the tracking system's listener nothing more."""
        if self._tracker is not None:
            self._tracker.close()

    def _publish(self) -> None:
        """Tell the tracking system's listener, and the window."""
        if self._tracker is not None and self.began:
            poses = {name: pose[0].tolist() for name, pose in self.task.tracked(self.state).items()}
            with contextlib.suppress(ConnectionError):  # nobody listens
                self._tracker.send(json.dumps({"poses": poses}).encode())
        if self._viewer is not None:
            self._draw(self._picture)
            self._viewer.sync()

    def _draw(self, picture: mujoco.MjData) -> None:
        state = self.state
        picture.qpos[:], picture.mocap_pos[:], picture.mocap_quat[:] = (
            array[0] for array in (state.qpos, state.mocap_pos, state.mocap_quat)
        )
        mujoco.mj_forward(self.model, picture)


class ArmPlant(Plant):
    """One arm of a task's scene, whose joints follow targets by the servos of its model.

    Args:
        task: Name in the table of tasks; one of those on MuJoCo with an arm.
        settings: See `Plant`.
        tracker: See `Plant`.
        view: See `Plant`.
        arm: Index of the arm.
    """

    def __init__(
        self,
        task: str,
        settings: Mapping[str, Any],
        tracker: str | None = None,
        view: bool = False,
        arm: int = 0,
    ) -> None:
        super().__init__(task, settings, tracker, view)
        arms: list[ArmControl] = getattr(self.task, "arms", None) or [self.task.arm]
        self.arm = arms[arm]
        self.data = mujoco.MjData(self.model)
        self.powered = False
        """Whether the servos hold the targets; without, the joints are where they are (the brakes hold)."""
        self._steps = 0
        self._sensors = deque([np.zeros(self.model.nsensordata)] * self.task.substeps, maxlen=self.task.substeps)
        self._fingers = [finger for finger, _ in self.arm.fingers]
        self._robot = _robot_elements(self.model)
        self._hand = int(self.model.joint(self.arm.robot.joint_names(self.arm.prefix)[-1]).bodyid[0])
        """Body that the last joint turns."""
        self.data.qpos[:], self.data.ctrl[:] = self.state.qpos[0], self.state.ctrl[0]
        self.lay_out(away=True)

    @property
    def step_ns(self) -> int:
        """A step of the physics [ns]."""
        return round(1e9 * self.model.opt.timestep)

    @property
    def position(self) -> Float64[ndarray, " joints"]:
        """Of the joints [rad]."""
        return self.data.qpos[self.arm.qpos].copy()

    @property
    def velocity(self) -> Float64[ndarray, " joints"]:
        """Of the joints [rad/s]."""
        return self.data.qvel[self.arm.qvel].copy()

    @property
    def effort(self) -> Float64[ndarray, " joints"]:
        """Torques of the servos [N m]."""
        return self.data.actuator_force[self.arm.ctrl].copy()

    @property
    def opening(self) -> float:
        """Of the gripper: 0 closed, 1 open; 1 without one."""
        stroke = 2 * self.arm.robot.gripper.stroke
        return float(self.data.qpos[self._fingers].sum()) / stroke if self._fingers else 1.0

    @property
    def tool_pose(self) -> tuple[Float64[ndarray, "3"], Float64[ndarray, "3 3"]]:
        """Position [m] and axes of the task's tool point in the world, as they were when the last step began."""
        chain, axes = self.arm.chain, self.data.xmat[self._hand].reshape(3, 3)
        return self.data.xpos[self._hand] + axes @ chain.offsets[-1], axes @ chain.rotations[-1]

    @property
    def wrench(self) -> Float64[ndarray, " sensors"]:
        """What the scene's sensors at the tool measured, averaged over the last control step of the task.

        PegInsertion: force [N] and torque [N m] on the tip, in its frame.
        """
        return np.mean(self._sensors, axis=0)

    def command(self, target: Float64[ndarray, " joints"], opening: float | None = None) -> None:
        """Set the targets of the joints [rad], and of the gripper, 0 closed to 1 open."""
        self.data.ctrl[self.arm.ctrl] = np.clip(target, self.arm.low, self.arm.high)
        if opening is not None:
            for _, finger in self.arm.fingers:
                self.data.ctrl[finger] = self.arm.robot.gripper.stroke * np.clip(opening, 0.0, 1.0)

    def pass_step(self) -> None:
        """See `Plant.pass_step`."""
        if not self.powered:
            self.data.ctrl[self.arm.ctrl] = self.position
        mujoco.mj_step(self.model, self.data)
        self._sensors.append(self.data.sensordata.copy())
        self._steps += 1
        if self._steps % self.task.substeps == 0:
            state, data = self.state, self.data
            state.qpos[0], state.qvel[0] = data.qpos, data.qvel
            state.mocap_pos[0], state.mocap_quat[0] = data.mocap_pos, data.mocap_quat
            self.task.forward(state)
            self.judge()

    def lay_out(self, away: bool) -> list[float]:
        """See `Plant.lay_out`; the robot begins with its gripper open."""
        self.environment.reset(seed=self._seed)
        state, data, things = self.state, self.data, ~self._robot
        start = state.qpos[0, self.arm.qpos].tolist()
        data.qpos[things], data.mocap_pos[:], data.mocap_quat[:] = (
            state.qpos[0, things],
            state.mocap_pos[0],
            state.mocap_quat[0],
        )
        for body in range(self.model.nbody):
            joint = self.model.body_jntadr[body]
            if joint >= 0 and self.model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
                speed = self.model.jnt_dofadr[joint]
                data.qvel[speed : speed + 6] = 0.0
                data.qpos[self.model.jnt_qposadr[joint] + 2] += AWAY * away
        data.mocap_pos[:, 2] += AWAY * away
        mujoco.mj_forward(self.model, data)
        return start


class QuadcopterPlant(Plant):
    """The drone of a task with one drone, below whatever level of its flight controller the emulator commands."""

    task: QuadcopterTask

    def __init__(self, task: str, settings: Mapping[str, Any], tracker: str | None = None, view: bool = False) -> None:
        super().__init__(task, settings, tracker, view)
        self._mode, self._command = "rotor_speed", np.zeros(4)
        self.battery = 1.0
        """Share of the charge that is left."""
        self._land()

    def _land(self) -> None:
        """Put the drone on the floor under the start, with its rotors at rest."""
        state = self.state
        state.qpos[0, 2:7] = RESTING_HEIGHT, 1.0, 0.0, 0.0, 0.0
        state.qvel[:], state.ctrl[:], state.extras["rotor_speed"][:], state.extras["controller"][:] = 0.0, 0.0, 0.0, 0.0
        self.task.forward(state)

    @property
    def step_ns(self) -> int:
        """A control step of the task, at which the flight controller runs, too [ns]."""
        return round(1e9 / self.task.control_rate)

    @property
    def pose(self) -> Float64[ndarray, "7"]:
        """Position [m] and quaternion wxyz in the world."""
        return self.state.qpos[0].copy()

    @property
    def twist(self) -> Float64[ndarray, "6"]:
        """Velocity in the world [m/s] and body rates [rad/s]."""
        return self.state.qvel[0].copy()

    @property
    def airborne(self) -> bool:
        """Whether it is off the floor."""
        return bool(self.state.qpos[0, 2] > 2 * RESTING_HEIGHT)

    def command(self, mode: str, values: Float64[ndarray, "4"]) -> None:
        """What the flight controller is to do from now on.

        Args:
            mode: One of `alula.sims.quadcopters.action_modes.MODES`; "rotor_speed" with zeros: motors off.
            values: Four numbers in the mode's units.
        """
        self._mode, self._command = mode, np.asarray(values, dtype=np.float64)

    def pass_step(self) -> None:
        """See `Plant.pass_step`."""
        state, task = self.state, self.task
        task.commit(state)
        memory = np.moveaxis(state.extras["controller"], -1, 0)
        command = self._command[:, None, None]
        speeds = convert(task.controller, task.motion(state), command, memory, self._mode, "rotor_speed")
        state.ctrl[:] = speeds[:, :, 0].T
        self.environment.engine.advance()
        if state.qpos[0, 2] < RESTING_HEIGHT:  # the floor
            state.qpos[0, 2] = RESTING_HEIGHT
            state.qvel[0] = 0.0
        task.forward(state)
        self.judge()

    def lay_out(self, away: bool) -> list[float]:
        """See `Plant.lay_out`; position and yaw."""
        state = self.state
        robot = [state.qpos, state.qvel, state.ctrl, *(state.extras[name] for name in ("rotor_speed", "controller"))]
        kept = [array.copy() for array in robot]
        self.environment.reset(seed=self._seed)
        start = [*state.qpos[0, :3].tolist(), 0.0]
        for array, value in zip(robot, kept, strict=True):
            array[:] = value
        if "before" in state.extras:  # where Gates looks for crossings from
            state.extras["before"][:] = state.qpos[:, :3]
        self.task.forward(state)
        return start


def _robot_elements(model: mujoco.MjModel) -> ndarray:
    """Elements of `qpos` that belong to actuated joints."""
    robot = np.zeros(model.nq, dtype=bool)
    for joint in model.actuator_trnid[:, 0]:
        robot[model.jnt_qposadr[joint]] = True
    return robot


def _connected(address: str) -> socket.socket:
    """For datagrams to "host:port"."""
    host, _, port = address.rpartition(":")
    connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connection.connect((host, int(port)))
    return connection


def _viewer(model: mujoco.MjModel, data: mujoco.MjData) -> Any:
    from mujoco import viewer  # needs a display

    return viewer.launch_passive(model, data)
