"""Before anything moves: do policy, dataset and device belong together? One line for every field, and why not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alula.core.errors import ConfigError, DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.policies.conditioners import IMAGES
from alula.real_robot.cameras.process import CameraProcess
from alula.real_robot.contract import DeviceSpec
from alula.real_robot.devices.registry import DeviceEntry
from alula.real_robot.planning.planner import Description
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
    checks = [_robot(config, spec.name, entry), _rate(task.control_rate, spec)]
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


def _rate(rate: float, spec: DeviceSpec) -> Check:
    problem = None
    if rate > spec.rate * (1 + 1e-9):
        problem = f"the device takes no more than {spec.rate:g} commands a second: train the policy at that rate"
    return Check("rate", f"{rate:g} Hz", f"{spec.rate:g} Hz", problem)


def _grip(task: Task, spec: DeviceSpec) -> list[Check]:
    (action,) = task.action.values()
    wants = any(name.endswith("opening") for name in action.element_names)
    if not wants:
        return []
    has = spec.grip is not None
    return [Check("gripper", "commands it", "has one" if has else "has none", None if has else "use one that has")]


def _fields(fields: Iterable[FieldSpec]) -> str:
    return "; ".join(f"{', '.join(field.element_names)} ({field.control_mode})" for field in fields)


def require_recorded_device(policy: Description, name: str) -> None:
    """Refuse a policy that has learnt from recordings of another device, before the device is even looked for.

    Raises:
        DeviceError: it has.
    """
    require([_recorded_device(policy, name)], name)


def compare_recorded(policy: Description, spec: DeviceSpec) -> list[Check]:
    """Everything but pictures that a device and a policy that has learnt from recordings say of each other."""
    (action,), (taken,) = policy.action.values(), spec.action.values()
    checks = [_recorded_device(policy, spec.name), _rate(policy.rate, spec)]
    checks.append(Check("action", f"commands {_told(action)}", f"takes {_told(taken)}", _difference(action, taken)))
    seen = without_pictures(policy.observation)
    offered = [name for name in policy.observation if name in spec.observation or name not in seen]
    for name, field in seen.items():
        measured = spec.observation.get(name)
        if measured is None:
            remedy = f"train it with fields=[{','.join(offered)}]"
            checks.append(Check(name, "sees it", "does not measure it", remedy))
        else:
            told = f"sees {_told(field)}", f"measures {_told(measured)}"
            checks.append(Check(name, *told, _difference(field, measured)))
    return checks


def _recorded_device(policy: Description, name: str) -> Check:
    """Checkpoints that do not say it are judged by their fields alone."""
    trained = policy.task.get("device")
    problem = None if trained in (None, name) else f"choose device={trained}, or train it on recordings of this one"
    return Check("device", f"has learnt on {trained or 'one that is not named'}", f"is {name}", problem)


def _told(field: FieldSpec) -> str:
    mode = f", {field.control_mode}" if field.control_mode else ""
    return f"{field.size} elements [{', '.join(dict.fromkeys(field.units))}]{mode}"


def _difference(mine: FieldSpec, theirs: FieldSpec) -> str | None:
    """The first in what two fields differ that decides what their numbers mean; None where in nothing."""
    remedy = "use a policy that has learnt from recordings of this device"
    if mine.shape != theirs.shape or mine.control_mode != theirs.control_mode:
        return remedy
    size = mine.shape[-1] if mine.shape else 1
    names, units = (mine.element_names, theirs.element_names), (mine.units, theirs.units)
    for what, sides in (("name", names), ("unit", units)):
        left, right = (side * size if len(side) == 1 else side or ("",) * size for side in sides)
        for index, (own, other) in enumerate(zip(left, right, strict=True)):
            if own != other:
                return f"{what} of element {index} is '{own}' to the policy, '{other}' to the device: {remedy}"
    return None


def without_pictures(space: SpaceSpec) -> SpaceSpec:
    """What of an observation does not come from cameras."""
    return SpaceSpec(tuple(field for field in space.values() if not field.name.startswith(IMAGES)))


def compare_pictures(observation: SpaceSpec, cameras: Sequence[CameraProcess]) -> list[Check]:
    """The pictures that a policy sees, and the cameras that were named.

    Pictures are not scaled: the policy has seen its cameras' pictures as they are.
    """
    checks, shown = [], {name: field for camera in cameras for name, field in camera.spec.items()}
    for name, field in observation.items():
        if not name.startswith(IMAGES):
            continue
        (height, width, _), found = field.shape, shown.pop(name, None)
        if found is None:
            remedy = f"add its camera: cameras=[{name.removeprefix(IMAGES)}:KIND:SOURCE]"
            checks.append(Check(name, f"sees {width} x {height}", "has no such camera", remedy))
            continue
        remedy = f"set width={width} height={height}, or leave both out"
        shows = f"shows {found.shape[1]} x {found.shape[0]}"
        checks.append(Check(name, f"sees {width} x {height}", shows, None if found.shape == field.shape else remedy))
    checks += [Check(name, "does not see it", "leaves the camera closed") for name in shown]
    return checks


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
