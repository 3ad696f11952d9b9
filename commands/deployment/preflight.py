"""Before anything moves: do policy, dataset and device belong together? One line for every field, and why not."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from alula.core.errors import ConfigError, DeviceError
from alula.core.spaces import FieldSpec
from alula.real_robot.contract import DeviceSpec
from alula.real_robot.devices.registry import DeviceEntry
from alula.sims.registry import make_task
from alula.sims.task import Task


@dataclass(frozen=True)
class Check:
    """One thing that both sides say something about."""

    what: str
    policy: str
    device: str
    problem: str | None = None
    """What to do about it; None where the two agree."""


def fit_task(task: Task, config: Any, entry: DeviceEntry) -> tuple[Task, Any]:
    """The task with the device's robot in place of the one it was trained on, where the policy cannot tell the two.

    Args:
        task: What the policy was trained on.
        config: Of the task.
        entry: The device's.
    """
    if entry.robot is None or getattr(config, "robot", entry.robot) == entry.robot:
        return task, config
    try:
        exchanged = replace(config, robot=entry.robot)
    except ConfigError:
        return task, config
    other = make_task(exchanged)
    sees_joints = any("joint" in name for field in task.observation.values() for name in field.element_names)
    if sees_joints or other.observation != task.observation or other.action != task.action:
        return task, config
    return other, exchanged


def require_robot(config: Any, name: str, entry: DeviceEntry) -> None:
    """Refuse a policy of another robot, before the device is even looked for.

    Raises:
        DeviceError: it is.
    """
    require([_robot(config, name, entry)], name)


def compare(task: Task, config: Any, spec: DeviceSpec, entry: DeviceEntry, found: Iterable[str]) -> list[Check]:
    """Everything that policy and device say of each other.

    Args:
        task: What the policy sees and commands, as `fit_task` left it.
        config: Of the task.
        spec: Of the device.
        entry: The device's.
        found: Things whose poses are known.
    """
    checks = [_robot(config, spec.name, entry), *_rates(task, spec)]
    (action,) = task.action.values()
    checks.append(Check("action", _fields([action]), _fields(spec.action.values())))
    if task.model.nsensor and entry.robot is not None:
        has = "observation.wrench" in spec.observation
        problem = None if has else "use a device that measures forces, or a policy that sees none"
        checks.append(Check("forces at the tool", "sees them", "measures them" if has else "does not", problem))
    known = set(found)
    checks.extend(_grip(task, spec))
    environment = task.make_engine(1, 1)
    for name in task.tracked(environment.state):
        problem = None if name in known else f"send its pose to the tracker, or name it in poses=FILE as '{name}'"
        checks.append(Check(f"pose of {name}", "sees it", "tracked" if name in known else "unknown", problem))
    environment.close()
    return checks


def _robot(config: Any, name: str, entry: DeviceEntry) -> Check:
    trained, own = getattr(config, "robot", None), entry.robot
    kind = trained or type(config).__name__.removesuffix("Config")
    same = trained == own if trained is not None else own is None
    problem = None if same else f"train it with task.robot={own}" if own and trained else "choose another device"
    return Check("robot", str(kind), f"{name} ({own or 'no arm'})", problem)


def _rates(task: Task, spec: DeviceSpec) -> list[Check]:
    problem = None
    if task.control_rate > spec.rate * (1 + 1e-9):
        problem = f"the device takes no more than {spec.rate:g} commands a second: train the policy at that rate"
    return [Check("rate", f"{task.control_rate:g} Hz", f"{spec.rate:g} Hz", problem)]


def _grip(task: Task, spec: DeviceSpec) -> list[Check]:
    (action,) = task.action.values()
    wants = any(name.endswith("opening") for name in action.element_names)
    if not wants:
        return []
    has = spec.grip is not None
    return [Check("gripper", "commands it", "has one" if has else "has none", None if has else "use one that has")]


def _fields(fields: Iterable[FieldSpec]) -> str:
    return "; ".join(f"{', '.join(field.element_names)} ({field.control_mode})" for field in fields)


def require(checks: Iterable[Check], name: str) -> None:
    """Refuse where a line has a problem.

    Raises:
        DeviceError: names all of them.
    """
    problems = [
        f"{check.what}: the policy {check.policy}, the device {check.device}; {check.problem}"
        for check in checks
        if check.problem is not None
    ]
    if problems:
        raise DeviceError(f"the policy cannot run on {name}, nothing has moved. " + ". ".join(problems))
