"""Quadcopters: Bullet against gym-pybullet-drones, the torch model against crazyflow."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from alula.commands.benches.measure import interleaved, median, ratio
from alula.commands.benches.peer import Peer, interpreter
from alula.commands.console import Result
from alula.configs.schemas import BenchConfig
from alula.sims.quadcopters.bullet_engine import QuadcopterBulletEngine
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE
from alula.sims.quadcopters.dynamics import Dynamics, Flight
from alula.sims.registry import make_task
from alula.sims.tasks.quadcopter.config import FormationConfig, HoverConfig
from alula.sims.vector import TaskVectorEnv

PHYSICS_RATE, CONTROL_RATE, CAMERA_RATE = 240, 30, 24
"""Those of gym-pybullet-drones' HoverAviary; its camera takes pictures at the last [Hz]."""
USUAL_HOVER = 5_622.0
"""Environment steps per second of its Hover on an AMD EPYC core: assumed where no checkout is given."""
STEPS = 300
"""Control steps per turn, ten simulated seconds."""
CAMERA = (64, 48)
NUM_DRONES, TIMESTEP, TORCH_STEPS = 4096, 0.002, 250
FORMATION = 10
BATCH = 16
"""Hover environments side by side; gym-pybullet-drones has no batches."""


def quadcopters(config: BenchConfig) -> list[Result]:
    """All rows about quadcopters."""
    return [*_bullet(config), *_torch(config)]


def _bullet(config: BenchConfig) -> list[Result]:
    """Hover with rotor speeds as actions, many and one; ten drones; a camera picture with every step."""
    common: dict[str, Any] = {"engine": "bullet", "action_mode": "rotor_speed"}
    common |= {"physics_rate": PHYSICS_RATE, "aerodynamics": Aerodynamics(motor_lag=False)}
    hover = HoverConfig(control_rate=CONTROL_RATE, **common)
    seen = HoverConfig(control_rate=CAMERA_RATE, **common)
    ten = FormationConfig(control_rate=CONTROL_RATE, num_drones=FORMATION, **common)
    kinds = {
        "batch": (hover, False, STEPS // 10),
        "one": (hover, False, STEPS),
        "ten": (ten, False, STEPS // 5),
        "camera": (seen, True, STEPS // 10),
    }
    with ExitStack() as stack:
        contenders = {}
        for name, (settings, camera, steps) in kinds.items():
            count = BATCH if name == "batch" else 1
            environments = TaskVectorEnv(make_task(settings), count, AutoresetMode.SAME_STEP)
            stack.enter_context(closing(environments))
            contenders[name] = _steps(environments, steps, camera)
        theirs = interpreter(config.peers, "gym_pybullet_drones")
        if theirs and config.gym_pybullet_drones:
            for name, drones, view in (("one", 1, "kin"), ("ten", FORMATION, "kin"), ("camera", 1, "rgb")):
                checkout, steps = config.gym_pybullet_drones, kinds[name][2]
                peer = Peer(theirs, "gym_pybullet_drones", checkout, drones, view)
                contenders[f"their_{name}"] = stack.enter_context(closing(peer)).rounds(1, steps, steps)
        rates = interleaved(contenders, config.repeats)
    results = [
        median("quad_bullet_steps_per_s", rates["batch"], "1/s"),
        median("quad_bullet_single_steps_per_s", rates["one"], "1/s"),
        median("quad_bullet_10_drones_steps_per_s", rates["ten"], "1/s"),
        median("quad_bullet_camera_steps_per_s", rates["camera"], "1/s"),
    ]
    if "their_one" not in rates:
        assumed, source = [USUAL_HOVER] * len(rates["one"]), "gym-pybullet-drones, its rate on an AMD EPYC"
        return [ratio("quad_bullet_vs_gpd", rates["batch"], assumed, source, 3.0), *results]
    measured = ratio("quad_bullet_vs_gpd", rates["batch"], rates["their_one"], "gym-pybullet-drones", 3.0)
    return [
        measured,
        *results,
        *(median(f"gpd_{name}_steps_per_s", rates[f"their_{name}"], "1/s") for name in list(kinds)[1:]),
    ]


def _steps(environments: TaskVectorEnv, count: int, camera: bool) -> Callable[[], Iterator[int]]:
    """Random rotor speeds around hovering, and what the camera sees where asked."""
    engine = environments.engine
    assert isinstance(engine, QuadcopterBulletEngine)
    shape = (count, environments.num_envs, environments.task.action["action"].size)
    spread = np.random.default_rng(0).uniform(0.95, 1.05, shape)
    actions = (CRAZYFLIE.hover_speed * spread).astype(np.float32)
    environments.reset(seed=0)

    def work() -> Iterator[int]:
        for action in actions:
            environments.step(action)
            if camera:
                engine.picture(0, 0, *CAMERA)
        yield count * environments.num_envs

    return work


def _torch(config: BenchConfig) -> list[Result]:
    """Physics steps of many drones at once in single precision, gradients off."""
    contenders = {"ours": _torch_steps()}
    with ExitStack() as stack:
        if crazyflow := interpreter(config.peers, "crazyflow"):
            peer = stack.enter_context(closing(Peer(crazyflow, "crazyflow", NUM_DRONES)))
            contenders["crazyflow"] = peer.rounds(1, TORCH_STEPS, TORCH_STEPS * NUM_DRONES)
        rates = interleaved(contenders, config.repeats)
    results = [median("quad_torch_steps_per_s", rates["ours"], "1/s", bar=5e6)]
    if "crazyflow" in rates:
        quotients = [ours / theirs for ours, theirs in zip(rates["ours"], rates["crazyflow"], strict=True)]
        results.append(median("quad_torch_vs_crazyflow", quotients, "ratio", peer="crazyflow"))
    return results


def _torch_steps() -> Callable[[], Iterator[int]]:
    dynamics = Dynamics(TIMESTEP, Aerodynamics(), dtype=torch.float32)
    zeros, hover = torch.zeros(3, NUM_DRONES), torch.full((4, NUM_DRONES), CRAZYFLIE.hover_speed)
    upright = torch.tensor([1.0, 0.0, 0.0, 0.0])[:, None].expand(4, NUM_DRONES).contiguous()
    generator = torch.Generator().manual_seed(0)
    command = hover * (0.98 + 0.04 * torch.rand(4, NUM_DRONES, generator=generator))

    def work() -> Iterator[int]:
        flight = Flight(zeros, upright, zeros, zeros, hover)
        with torch.inference_mode():
            for _ in range(TORCH_STEPS):
                flight = dynamics.step(flight, command)
        yield TORCH_STEPS * NUM_DRONES

    return work
