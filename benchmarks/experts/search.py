"""Search the gait of a locomotion task's expert: CMA-ES on the batched engine, one row per candidate.

    python benchmarks/experts/search.py TASK [--seed 0] [--steps 20_000_000] [--processes 4]

Equal seeds give equal gaits, whatever the number of processes. A candidate's score is how far [m] and for how long [s]
it comes in an episode, which ends early on a fall, on success, and when it has fallen too far behind the average speed
that success needs. Every `CHECK_EVERY` generations, once candidates succeed, their mean runs on other seeds; the search
ends when that is good enough, or when the steps are used up. Neither kind of seeds is among those of `run.py`. The
result goes to sims/tasks/locomotion/experts/TASK.json.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
from numpy import ndarray

from alula.core.seeding import BatchRng
from alula.sims.mujoco_engine import MujocoEngine
from alula.sims.registry import TASKS, make_task
from alula.sims.tasks.locomotion.base import LocomotionTask
from alula.sims.tasks.locomotion.expert import Gait, GaitExpert
from alula.training.provenance import machine

FOLDER = Path(__file__).parents[2] / "sims" / "tasks" / "locomotion" / "experts"
FIRST_SEARCH_SEED, FIRST_CHECK_SEED = 1_000_000, 500_000
CHECK_EVERY, CHECK_EPISODES, CHECK_BAR = 25, 100, 0.99
NAMES = ("hopper", "walker2d", "half_cheetah", "ant")
POPULATION = 32
"""Candidates of a generation: one episode each, of the same start, which is another in every generation."""
PATIENCE = 3.0
"""How far behind the needed average speed a candidate may be [s]: enough to learn standing first."""
FIRST_FREQUENCY = 2.0
"""Clock of the first candidates [Hz]."""
SPREAD, FREQUENCY_SPREAD = 0.3, 0.09
"""First standard deviations, of the weights and of the frequency's logarithm."""

SYMMETRIES = {
    "walker2d": (
        [(f"{part}_joint", f"{part}_left_joint") for part in ("thigh", "leg", "foot")],
        ("sine", "cosine"),
    ),
    "ant": (
        [("hip_1", "hip_4"), ("ankle_1", "ankle_4"), ("hip_2", "hip_3"), ("ankle_2", "ankle_3")],
        ("sine", "cosine", "qx", "qz", "hip_1", "hip_2", "hip_3", "hip_4", "velocity_y", "rate_x", "rate_z"),
    ),
}
"""Joints of one half of the body with those of the other, and what changes its sign in the mirror."""


class EvolutionStrategy:
    """CMA-ES (Hansen 2016, "The CMA evolution strategy: a tutorial", with its default constants); maximises.

    Args:
        deviations: Of the first search distribution, whose mean is zero.
        population: Candidates per generation.
        seed: Seed of the candidates.
    """

    def __init__(self, deviations: ndarray, population: int, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.size, self.population, self.generation = len(deviations), population, 0
        self.mean, self.covariance, self.step = np.zeros(self.size), np.diag(deviations**2), 1.0
        self.path, self.step_path = np.zeros(self.size), np.zeros(self.size)
        parents = population // 2
        shares = np.log(parents + 0.5) - np.log(np.arange(1, parents + 1))
        self.shares = shares / shares.sum()
        self.effective = effective = 1 / (self.shares**2).sum()
        n = self.size
        self.path_rate = (4 + effective / n) / (n + 4 + 2 * effective / n)
        self.step_rate = (effective + 2) / (n + effective + 5)
        self.rank_one = 2 / ((n + 1.3) ** 2 + effective)
        self.rank_many = min(1 - self.rank_one, 2 * (effective - 2 + 1 / effective) / ((n + 2) ** 2 + effective))
        self.damping = 1 + 2 * max(0.0, np.sqrt((effective - 1) / (n + 1)) - 1) + self.step_rate
        self.expected = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))

    def ask(self) -> ndarray:
        """Candidates (population, size) of the next generation."""
        variances, self._axes = np.linalg.eigh(self.covariance)
        self._white = self.generator.standard_normal((self.population, self.size))
        self._moves = (self._white * np.sqrt(variances)) @ self._axes.T
        return self.mean + self.step * self._moves

    def tell(self, scores: ndarray) -> None:
        """Move towards the better half, and learn from its moves."""
        self.generation += 1
        best = np.argsort(-scores, kind="stable")[: len(self.shares)]
        moves, move = self._moves[best], self.shares @ self._moves[best]
        self.mean = self.mean + self.step * move
        keep, gain = 1 - self.step_rate, self.step_rate * (2 - self.step_rate) * self.effective
        self.step_path = keep * self.step_path + np.sqrt(gain) * self._axes @ (self.shares @ self._white[best])
        length = np.linalg.norm(self.step_path)
        normal = length / np.sqrt(1 - keep ** (2 * self.generation)) < (1.4 + 2 / (self.size + 1)) * self.expected
        lost = self.path_rate * (2 - self.path_rate)
        self.path = (1 - self.path_rate) * self.path + normal * np.sqrt(lost * self.effective) * move
        old = (1 - self.rank_one - self.rank_many) + (not normal) * self.rank_one * lost
        learned = self.rank_one * np.outer(self.path, self.path) + self.rank_many * (moves.T * self.shares) @ moves
        self.covariance = old * self.covariance + learned
        self.step *= np.exp(self.step_rate / self.damping * (length / self.expected - 1))


@dataclass
class Outcome:
    """How the episodes of a batch ended."""

    distance: ndarray
    """[m]"""
    duration: ndarray
    """[s]"""
    success: ndarray
    steps: int
    """Control steps of all episodes together."""


def run(task: LocomotionTask, gaits: Gait, seeds: ndarray) -> Outcome:
    """One episode per gait and seed; those that have ended are simulated no longer."""
    running = np.arange(len(seeds))
    engine = MujocoEngine(task.model, len(seeds), task.substeps, task.extras, num_threads=1)
    task.reset(engine.state, running, BatchRng.from_seeds(seeds))
    expert = GaitExpert(task, task.hidden, gaits, 0.0, 0)
    pace = task.config.success_distance / task.max_episode_steps * task.control_rate
    outcome = Outcome(np.zeros(len(seeds)), np.zeros(len(seeds)), np.zeros(len(seeds), dtype=bool), 0)
    for step in range(1, task.max_episode_steps + 1):
        task.control(engine.state, expert.act(engine.state).astype(np.float32))
        diverged = engine.advance()
        now = step / task.control_rate
        distance = engine.state.qpos[:, 0].copy()
        on_time = distance >= pace * (now - PATIENCE)
        upright = task.healthy(engine.state) & ~diverged
        success = upright & task.success(engine.state)
        outcome.distance[running], outcome.duration[running], outcome.success[running] = distance, now, success
        outcome.steps += len(running)
        goes_on = upright & on_time & ~success
        if not goes_on.any():
            break
        if not goes_on.all():
            running, engine = running[goes_on], _keep(engine, task, goes_on)
            expert.gait = Gait(gaits.frequency[running], gaits.weights[running])
    engine.close()
    return outcome


def _keep(engine: MujocoEngine, task: LocomotionTask, chosen: ndarray) -> MujocoEngine:
    """A smaller engine with only the chosen environments."""
    kept = MujocoEngine(task.model, int(chosen.sum()), task.substeps, task.extras, num_threads=1)
    kept.set_state({name: array[chosen] for name, array in engine.get_state().items()})
    engine.close()
    return kept


def score(task: LocomotionTask, outcome: Outcome) -> ndarray:
    """Metres and seconds together, as in the rewards; who arrives early has kept upright till the end, and a bonus."""
    limit = task.max_episode_steps / task.control_rate
    return outcome.distance + np.where(outcome.success, 2 * limit - outcome.duration, outcome.duration)


class Coding:
    """Gaits as vectors: the logarithm of the frequency, then the weights, of one half of a symmetric body only.

    The other half does the mirror image, half a period of the clock later.
    """

    def __init__(self, name: str, task: LocomotionTask) -> None:
        motors = list(task.action["action"].element_names)
        features = ["one", *(element for element, _ in LocomotionTask.elements(task)), "sine", "cosine"]
        pairs, flipped = SYMMETRIES.get(name, ((), ()))
        other = {one: two for pair in pairs for one, two in (pair, pair[::-1])}
        other |= {f"{one}_velocity": f"{two}_velocity" for one, two in other.items()}
        self.free = [index for index, motor in enumerate(motors) if motor not in [two for _, two in pairs]]
        self.bound = [motors.index(other[motors[index]]) for index in self.free if motors[index] in other]
        self.mirrored = [features.index(other.get(feature, feature)) for feature in features]
        turned = {*flipped, *(f"{name}_velocity" for name in flipped)}
        self.signs = np.array([-1.0 if feature in turned else 1.0 for feature in features])
        self.motor_signs = np.array([-1.0 if motors[index] in flipped else 1.0 for index in self.bound])
        self.shape = (len(motors), len(features))
        self.size = 1 + len(self.free) * len(features)

    def gaits(self, vectors: ndarray) -> Gait:
        """One gait per vector."""
        half = vectors[:, 1:].reshape(len(vectors), len(self.free), self.shape[1])
        weights = np.zeros((len(vectors), *self.shape))
        weights[:, self.free] = half
        if self.bound:
            weights[:, self.bound] = self.motor_signs[:, None] * (half * self.signs)[:, :, self.mirrored]
        return Gait(FIRST_FREQUENCY * np.exp(vectors[:, 0]), weights)


def run_parallel(pool: Pool, portions: int, task: LocomotionTask, gaits: Gait, seeds: ndarray) -> Outcome:
    """The same as `run`, in portions that other processes take."""
    rows = np.array_split(np.arange(len(seeds)), portions)
    parts = pool.starmap(run, [(task, Gait(gaits.frequency[row], gaits.weights[row]), seeds[row]) for row in rows])
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "duration", "success")
    }
    return Outcome(**arrays, steps=sum(part.steps for part in parts))


def search(name: str, seed: int, budget: int, pool: Pool, processes: int) -> dict[str, object] | None:
    """A gait that passes the check, and how it came about; None if `budget` control steps do not suffice."""
    task: LocomotionTask = make_task(TASKS[name].config())
    coding, begin, used = Coding(name, task), time.perf_counter(), 0
    deviations = np.full(coding.size, SPREAD)
    deviations[0] = FREQUENCY_SPREAD
    strategy = EvolutionStrategy(deviations, POPULATION, seed)
    simulate = partial(run_parallel, pool, processes, task)
    while used < budget:
        candidates = coding.gaits(strategy.ask())
        starts = np.full(POPULATION, FIRST_SEARCH_SEED + strategy.generation)
        found = simulate(candidates, starts)
        strategy.tell(score(task, found))
        used += found.steps
        if strategy.generation % CHECK_EVERY:
            continue
        minutes = (time.perf_counter() - begin) / 60
        print(f"generation {strategy.generation}: {used:,} steps, {minutes:.1f} min; {_summary(found)}", flush=True)
        if not found.success.any():
            continue
        gaits = coding.gaits(np.repeat(strategy.mean[None], CHECK_EPISODES, axis=0))
        check = simulate(gaits, FIRST_CHECK_SEED + np.arange(CHECK_EPISODES))
        used += check.steps
        print(f"mean of the candidates: {_summary(check)}", flush=True)
        rate = float(check.success.mean())
        if rate >= CHECK_BAR:
            numbers = {"generations": strategy.generation, "steps": used, "minutes": round(minutes, 1), "success": rate}
            gait = {"frequency": float(gaits.frequency[0]), "weights": gaits.weights[0].tolist()}
            return {"task": name, "seed": seed, "machine": machine(), **numbers, **gait}
    return None


def _summary(outcome: Outcome) -> str:
    distance, duration = outcome.distance, outcome.duration
    middle = f"median {np.median(distance):.2f} m in {np.median(duration):.2f} s"
    return f"{middle}, best {distance.max():.2f} m, success {outcome.success.mean():.2f}"


def main() -> None:
    """Search, and keep what was found."""
    parser = argparse.ArgumentParser(description="Search the gait of a locomotion task's expert.")
    parser.add_argument("task", choices=NAMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20_000_000, help="most control steps to simulate")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with Pool(options.processes) as pool:
        found = search(options.task, options.seed, options.steps, pool, options.processes)
    if found is None:
        sys.exit(f"no good gait in {options.steps:,} steps from seed {options.seed}; try another seed, or more steps")
    (FOLDER / f"{options.task}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
