"""A slow policy, three ways to execute its chunks: what becomes of the motion, and of the task.

The whole chain from plan to motor runs in simulated time: source, governor and a plant with a UR5e's joints. So nothing
depends on the machine, and the policy is late by exactly as much as is said.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.commands.benches.measure import median
from alula.commands.console import ERR, Result
from alula.commands.deployment.twin import make_twin
from alula.commands.inference import Thinker
from alula.commands.inputs import expert_factory
from alula.core.real_time import Execution, Mode
from alula.datasets.store import EpisodeStore
from alula.policies.config import DiffusionPolicyConfig
from alula.policies.policy import GenerativePolicy
from alula.real_robot.contract import DeviceSpec, State
from alula.real_robot.devices.config import UR5eConfig
from alula.real_robot.devices.registry import make_device
from alula.real_robot.emulators.plant import ArmPlant
from alula.real_robot.governor import Governor
from alula.real_robot.planning.planner import Description, Plan, Request
from alula.real_robot.sources.policy import PolicySource
from alula.sims.task import Task
from alula.sims.tasks.tabletop.config import ReachConfig
from alula.sims.tasks.tabletop.reach import Reach
from alula.training.collection import collect
from alula.training.config import BCConfig
from alula.training.evaluation import wilson_interval
from alula.training.pipeline import clone
from alula.training.run import Run
from alula.training.seeds import DEMONSTRATIONS

DELAY_S = 0.2
"""From question to answer [s]."""
HORIZON, EXECUTE_STEPS = 16, 4
DEMONSTRATED, CLONING_STEPS = 100, 3000
EPISODES, FIRST_SEED = 20, 3_500_000
"""Per mode; seeds that nothing else uses."""
ROBOT = "ur5e"
STANDING = 0.02
"""Share of the velocity limits below which an arm counts as standing."""


class LatePlanner:
    """A policy whose answers come `DELAY_S` after the questions, by a clock of its own.

    Args:
        policy: Thinks.
        description: Of it.
        clock: Present time [ns].
    """

    def __init__(self, policy: GenerativePolicy, description: Description, clock: Callable[[], int]) -> None:
        self.description, self._think, self._clock = description, Thinker(policy, 0), clock
        self._plan: Plan | None = None

    def request(self, request: Request) -> None:
        """Ask."""
        self._plan = Plan(request, self._think(request))

    def poll(self) -> Plan | None:
        """The answer, when its time has come."""
        plan = self._plan
        if plan is None or self._clock() < plan.request.created_ns + DELAY_S * 1e9:
            return None
        self._plan = None
        return plan

    def close(self) -> None:
        """There is nothing to let go of."""


@dataclass
class Motion:
    """What a mode makes of the motion."""

    successes: int = 0
    jerks: list[float] = field(default_factory=list)
    """Root mean square over an episode, of the joint that jerks most [rad/s^3]."""
    standing: list[float] = field(default_factory=list)
    """Share of an episode, after the first motion, in which all joints stand still."""


def bench_delays() -> list[Result]:
    """Success, jerk and pauses of each mode, on the same episodes."""
    task = Reach(ReachConfig(robot=ROBOT))
    ERR.print("cloning a policy for the delays")
    policy = _cloned(task)
    results = []
    for mode in Mode:
        ERR.print(f"{mode} with a delay of {DELAY_S} s")
        motion = Motion()
        for episode in range(EPISODES):
            _run(task, policy, mode, FIRST_SEED + episode, motion)
        low, high = wilson_interval(motion.successes, EPISODES)
        results += [
            Result(f"delay_{mode}_success", motion.successes / EPISODES, "share", low, high, EPISODES),
            median(f"delay_{mode}_jerk", motion.jerks, "rad/s^3"),
            median(f"delay_{mode}_standing", motion.standing, "share"),
        ]
    return results


def _cloned(task: Task) -> GenerativePolicy:
    with TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder) / "demonstrations.zarr", task.observation, task.action)
        collect(task, expert_factory(task, 0.4, 0), store, DEMONSTRATED, DEMONSTRATIONS, only_success=True)
        settings = DiffusionPolicyConfig(horizon=HORIZON, execute_steps=EXECUTE_STEPS)
        with Run(Path(folder) / "run", {}, {}) as run:
            return clone(store, settings, BCConfig(steps=CLONING_STEPS), 0, run, lambda *_: None)


def _run(task: Task, policy: GenerativePolicy, mode: Mode, seed: int, motion: Motion) -> None:
    """An episode in simulated time."""
    spec = make_device(UR5eConfig(address="127.0.0.1")).spec
    plant, twin = ArmPlant("reach", {"robot": ROBOT}), make_twin(task, spec)
    plant.powered = True
    now = 0
    plant.reset(seed)
    plant.begin()
    plant.data.qpos[plant.arm.qpos] = plant.state.qpos[0, plant.arm.qpos]
    plant.command(plant.position)
    (action,) = task.action.values()
    about = Description(task.observation, task.action, task.control_rate, HORIZON, EXECUTE_STEPS, {})
    planner = LatePlanner(policy, about, lambda: now)
    twin.restart()
    source = PolicySource(
        planner,
        Execution(mode, HORIZON, EXECUTE_STEPS, action.size),
        about.rate,
        spec.period_ns,
        lambda state: twin.observe(state, {name: pose[0] for name, pose in task.tracked(plant.state).items()}),
        twin.wish,
    )
    governor, commands = Governor(spec), []
    period = 0
    while now < task.max_episode_steps / task.control_rate * 1e9 and not plant.succeeded:
        state = _measured(plant, spec, period, now)
        command = governor(source.at(now, state), state, now) if period else governor.start(state, now)
        commands.append(command.position)
        plant.command(command.position)
        period += 1
        now = period * spec.period_ns
        plant.advance(now)
    motion.successes += plant.succeeded
    _measure(np.array(commands), spec, motion)


def _measured(plant: ArmPlant, spec: DeviceSpec, sequence: int, now: int) -> State:
    position, velocity = plant.position, plant.velocity if sequence else np.zeros(len(plant.position))
    observation = {"observation.state": position}
    return State(observation, position, velocity, np.ones(len(position), dtype=bool), sequence, now)


def _measure(commands: Float64[ndarray, "periods joints"], spec: DeviceSpec, motion: Motion) -> None:
    speed = np.diff(commands, axis=0) * spec.rate
    jerk = np.diff(speed, 2, axis=0) * spec.rate**2
    motion.jerks.append(float(np.sqrt((jerk**2).mean(axis=0)).max()))
    fastest = (np.abs(speed) / np.array(spec.limits.velocity)).max(axis=1)
    first = int(np.argmax(fastest >= STANDING))
    motion.standing.append(float(np.mean(fastest[first:] < STANDING)))
