"""A slow policy, three ways to execute its chunks: what becomes of the motion, and of the task.

The whole chain from plan to motor runs in simulated time: source, governor and a plant with a UR5e's joints. So nothing
depends on the machine, and the policy is late by exactly as much as is said.

What is demonstrated decides whether plans can be executed late at all. A plan's first actions pass while it is made;
what is executed of it are those that follow. Where a demonstrator makes up for any error within the delay, the plans
cloned from it have all their correction in the actions that are dropped, and rest in those that are executed: the arm
stops short of the target and stays there, however well a plan agrees with the one before. Reach's own expert is of
that kind: its tool is there after 7 control steps (median), fewer than half a plan, errors below 2 cm take it a single
one, and its episodes end on arrival, so that most plans end with actions that were never seen. So this demonstrator is
unhurried, and goes on after it has arrived; the network, its training and what counts as success are as everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Bool, Float64
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
from alula.real_robot.planning.planner import Description, Plan, Request, Think
from alula.real_robot.sources.policy import PolicySource
from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.config import ReachConfig
from alula.sims.tasks.tabletop.expert import Waypoint
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
EPISODES, FIRST_SEED = 50, 3_500_000
"""Per mode; seeds that nothing else uses."""
ROBOT = "ur5e"
LEAD = 0.01
"""How far ahead of the tool the demonstrator aims [m]: a third of what is permitted, so that it takes 17 control steps
(median), and as many plans as it takes to see how they follow each other."""
UNSTEADINESS = 0.05
"""Of the demonstrator's hand; an eighth of what it is elsewhere, as what jerks should be the execution."""
MAX_EPISODE_STEPS = 100
"""Twice Reach's, as this demonstrator is slower; also of a demonstration."""
STANDING = 0.02
"""Share of the velocity limits below which an arm counts as standing."""


class Unhurried(Reach):
    """Reach as it is demonstrated here: slowly, and going on after arrival."""

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Straight there, with a short lead."""
        return [Waypoint(waypoint.poses, follow=True, lead=LEAD) for waypoint in super().plan(state)]

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Never, as that ends an episode; whoever judges the robot asks `Reach`."""
        return np.zeros(len(state.time), dtype=bool)


class LatePlanner:
    """A policy whose answers come late, by a clock of its own.

    Args:
        think: The policy.
        description: Of it.
        delay: From question to answer [s].
        clock: Present time [ns].
    """

    def __init__(self, think: Think, description: Description, delay: float, clock: Callable[[], int]) -> None:
        self.description, self._think, self._delay_ns, self._clock = description, think, round(1e9 * delay), clock
        self._plan: Plan | None = None

    def request(self, request: Request) -> None:
        """Ask."""
        self._plan = Plan(request, self._think(request))

    def poll(self) -> Plan | None:
        """The answer, when its time has come."""
        plan = self._plan
        if plan is None or self._clock() < plan.request.created_ns + self._delay_ns:
            return None
        self._plan = None
        return plan

    def close(self) -> None:
        """There is nothing to let go of."""


@dataclass
class Motion:
    """What a mode makes of the motion; a number per episode, from the first motion to success or the time limit."""

    successes: int = 0
    jerks: list[float] = field(default_factory=list)
    """Root mean square, of the tool as it is commanded from control step to control step [m/s^3].

    Quicker than that is how the governor rounds the corners between steps, which differs little between the modes."""
    standing: list[float] = field(default_factory=list)
    """Share of the time in which all joints stand still."""
    times: list[float] = field(default_factory=list)
    """Duration, the first plan included [s]."""


def bench_delays() -> list[Result]:
    """Success, jerk, pauses and duration of each mode, on the same episodes; first without delay, where all agree."""
    task = Unhurried(ReachConfig(robot=ROBOT, max_episode_steps=MAX_EPISODE_STEPS))
    ERR.print("cloning a policy for the delays")
    policy = _cloned(task)
    results = []
    for name, mode, delay in [
        ("undelayed", Mode.SYNCHRONOUS, 0.0),
        *((f"delay_{mode}", mode, DELAY_S) for mode in Mode),
    ]:
        ERR.print(f"{mode} with a delay of {delay} s")
        motion = Motion()
        for episode in range(EPISODES):
            run_late(task, Thinker(policy, 0), mode, delay, FIRST_SEED + episode, motion)
        low, high = wilson_interval(motion.successes, EPISODES)
        results += [
            Result(f"{name}_success", motion.successes / EPISODES, "share", low, high, EPISODES),
            median(f"{name}_jerk", motion.jerks, "m/s^3"),
            median(f"{name}_standing", motion.standing, "share"),
            median(f"{name}_time", motion.times, "s"),
        ]
    return results


def _cloned(task: Reach) -> GenerativePolicy:
    with TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder) / "demonstrations.zarr", task.observation, task.action)
        collect(task, expert_factory(task, UNSTEADINESS, 0), store, DEMONSTRATED, DEMONSTRATIONS, only_success=False)
        settings = DiffusionPolicyConfig(horizon=HORIZON, execute_steps=EXECUTE_STEPS)
        with Run(Path(folder) / "run", {}, {}) as run:
            return clone(store, settings, BCConfig(steps=CLONING_STEPS), 0, run, lambda *_: None)


def run_late(task: Reach, think: Think, mode: Mode, delay: float, seed: int, motion: Motion) -> None:
    """An episode in simulated time.

    Args:
        task: What is observed, and how actions are meant; Reach itself says what success is.
        think: The policy.
        mode: How its plans are executed.
        delay: From question to answer [s].
        seed: Of the episode.
        motion: What came of it is added here.
    """
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
    planner = LatePlanner(think, about, delay, lambda: now)
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
    motion.times.append(now / 1e9)
    _measure(np.array(commands), task, spec, motion)


def _measured(plant: ArmPlant, spec: DeviceSpec, sequence: int, now: int) -> State:
    position, velocity = plant.position, plant.velocity if sequence else np.zeros(len(plant.position))
    observation = {"observation.state": position}
    return State(observation, position, velocity, np.ones(len(position), dtype=bool), sequence, now)


def _measure(commands: Float64[ndarray, "periods joints"], task: Reach, spec: DeviceSpec, motion: Motion) -> None:
    speed = np.abs(np.diff(commands, axis=0)) * spec.rate
    fastest = (speed / np.array(spec.limits.velocity)).max(axis=1)
    if not (moving := np.flatnonzero(fastest >= STANDING)).size:  # it began at the target
        return
    first, periods = int(moving[0]), round(spec.rate / task.control_rate)
    motion.standing.append(float(np.mean(fastest[first:] < STANDING)))
    tool = task.arms[0].chain.forward(commands[first - first % periods :: periods]).position
    jerk = np.linalg.norm(np.diff(tool, 3, axis=0), axis=1) * task.control_rate**3
    if jerk.size:
        motion.jerks.append(float(np.sqrt((jerk**2).mean())))
