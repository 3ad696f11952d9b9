"""Where a policy has learnt, which says how it is run: in a simulated task, or from recordings of a device."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from alula.commands.deployment.direct import Direct
from alula.commands.deployment.embodiment import Embodiment
from alula.commands.deployment.emulating import scene_of
from alula.commands.deployment.preflight import (
    Check,
    compare,
    compare_recorded,
    fit_task,
    require_recorded_device,
    require_robot,
    without_pictures,
)
from alula.commands.deployment.twin import make_twin
from alula.core.errors import ConfigError
from alula.core.spaces import SpaceSpec
from alula.real_robot.contract import DeviceSpec
from alula.real_robot.devices.registry import DeviceEntry
from alula.real_robot.planning.planner import Description
from alula.sims.registry import TASKS, make_task, task_name
from alula.sims.task import Task
from alula.training.checkpoint import typed
from alula.training.pipeline import describe_task


class Origin(ABC):
    """What has to be known of where a policy has learnt."""

    name: str
    """For the name of what is recorded."""
    task: dict[str, Any]
    """Name and parameters of the task, for what is recorded; empty where there is none."""
    scene: dict[str, Any] | None
    """What an emulator puts around the robot, and judges; None: nothing in particular, and nobody judges."""
    seconds: float | None
    """Time limit of an episode [s], if there is one."""
    tracked: list[str]
    """Things whose poses the policy sees."""

    @abstractmethod
    def require_device(self, device: str) -> None:
        """Refuse a policy of another robot, before the device is even looked for.

        Raises:
            DeviceError: it is.
        """

    @abstractmethod
    def checks(self, spec: DeviceSpec, found: Iterable[str]) -> list[Check]:
        """Everything that policy and device say of each other, but for pictures.

        Args:
            spec: Of the device.
            found: Things whose poses are known.
        """

    @abstractmethod
    def embody(self, spec: DeviceSpec) -> Embodiment:
        """What lies between the policy and the device."""


class TaskOrigin(Origin):
    """A simulated task.

    Args:
        task: See `fit_task`.
        config: Of the task.
        entry: The device's.
    """

    def __init__(self, task: Task, config: Any, entry: DeviceEntry) -> None:
        self._task, self._config = fit_task(task, config, entry)
        self._entry = entry
        self.name, self.task, self.scene = task_name(config), describe_task(self._config), scene_of(self._config)
        self.seconds = self._task.max_episode_steps / self._task.control_rate
        engine = self._task.make_engine(1, 1)
        self.tracked = list(self._task.tracked(engine.state))
        engine.close()

    def require_device(self, device: str) -> None:
        """See `Origin.require_device`."""
        require_robot(self._config, device, self._entry)

    def checks(self, spec: DeviceSpec, found: Iterable[str]) -> list[Check]:
        """See `Origin.checks`."""
        return compare(self._task, self._config, spec, self._entry, found)

    def embody(self, spec: DeviceSpec) -> Embodiment:
        """See `Origin.embody`."""
        return make_twin(self._task, spec)


class RecordedOrigin(Origin):
    """Recordings of a device.

    Args:
        policy: What it sees and commands.
        scene: Configuration of the task that the emulator is to put around the robot, if any.
        entry: The device's.
    """

    name = "recorded"

    def __init__(self, policy: Description, scene: Any | None, entry: DeviceEntry) -> None:
        self._policy, self._robot = policy, entry.robot
        self.task, self.tracked = {}, []
        self.scene = self.seconds = None
        if scene is not None:
            if entry.robot is not None and hasattr(scene, "robot"):
                scene = replace(scene, robot=entry.robot)
            task = make_task(scene)
            self.scene, self.seconds = scene_of(scene), task.max_episode_steps / task.control_rate

    def require_device(self, device: str) -> None:
        """See `Origin.require_device`."""
        require_recorded_device(self._policy, device)

    def checks(self, spec: DeviceSpec, found: Iterable[str]) -> list[Check]:
        """See `Origin.checks`."""
        return compare_recorded(self._policy, spec)

    def embody(self, spec: DeviceSpec) -> Embodiment:
        """See `Origin.embody`."""
        return Direct(without_pictures(self._policy.observation), spec, self._robot)


def find_origin(policy: Description, config: Any | None, entry: DeviceEntry) -> Origin:
    """Where a policy has learnt.

    Args:
        policy: It says the task's name, unless it has learnt from recordings.
        config: Of the task that was named instead; of one that the policy cannot be of, it is the emulator's scene.
        entry: The device's.

    Raises:
        ConfigError: the policy's task is unknown.
        SpecError: the policy sees or commands something else than its task does.
    """
    known = policy.task.get("name")
    if config is None and known is not None:
        if known not in TASKS:
            raise ConfigError(f"the policy was trained on '{known}', which is unknown here; choose one with task=NAME")
        config = typed(TASKS[known].config, policy.task["config"])
    task = None if config is None else make_task(config)
    if known is None and (task is None or _spaces(policy) != _spaces(task)):
        return RecordedOrigin(policy, config, entry)
    assert task is not None
    remedy = "Use a policy that was trained on this task, or its own task"
    for mine, theirs in zip(_spaces(policy), _spaces(task), strict=True):
        mine.require(theirs, "the policy", f"task {task_name(config)}", remedy)
    return TaskOrigin(task, config, entry)


def _spaces(side: Description | Task) -> tuple[SpaceSpec, SpaceSpec]:
    """What is seen beside pictures, and what is commanded."""
    return without_pictures(side.observation), side.action
