"""Adapter: HoverAviary of gym-pybullet-drones (Panerati et al. 2021, arXiv 2103.02142), which is in no registry."""

import io
import warnings
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pybullet
from jaxtyping import Float64
from numpy import ndarray

from alula.core.spaces import ControlMode
from alula.sims.quadcopters.crazyflie import add_crazyflie
from alula.sims.tasks.quadcopter.scene import add_mark, empty_arena
from alula.sims.tasks.suites.config import HoverGpdConfig
from alula.sims.tasks.suites.engine import ReplayEngine
from alula.sims.tasks.suites.original import Original, Outcome, Pose
from alula.sims.tasks.suites.task import STATE, Part, SuiteTask, furnish

PHYSICS_RATE, CONTROL_RATE = 240, 30
"""[Hz]"""
NEAR = 0.05
"""Distance from the target that counts as success, which the original does not define [m]."""


class HoverGpd(SuiteTask):
    """Rotor speeds within 5 % of hovering; the drone climbs from the floor to one metre and stays there.

    Leaving the original's bounds (1.5 m aside, 2 m up, 0.4 rad tilted) ends the episode as a failure; the original
    calls that truncation. Bullet cannot save its state to the bit, therefore states are restored by replaying.
    """

    suite, package = "gym-pybullet-drones", "gym_pybullet_drones"
    remedy = "pip install 'setuptools<81' git+https://github.com/learnsyslab/gym-pybullet-drones"
    engine_class = ReplayEngine
    substeps = PHYSICS_RATE // CONTROL_RATE

    def __init__(self, config: HoverGpdConfig) -> None:
        motion = (("position", "m"), ("angle", "rad"), ("velocity", "m/s"), ("body_rate", "rad/s"))
        past = [Part(STATE, f"action_{age}_steps_ago", 4, "1") for age in reversed(range(CONTROL_RATE // 2))]
        super().__init__(config, [*(Part(STATE, name, 3, unit) for name, unit in motion), *past])
        self._start_range = config.start_range
        self._class = self.require("gym_pybullet_drones.envs.HoverAviary").HoverAviary
        spec = empty_arena(PHYSICS_RATE)
        add_crazyflie(spec, "drone0", (0.0, 0.0, 0.1))
        add_mark(spec, "target", NEAR)
        self.model = furnish(spec, ((1.3, -1.1, 1.1), (0.0, 0.0, 0.6)))
        self.action = self.action_space([f"rotor_{number}" for number in range(1, 5)], ControlMode.ROTOR_SPEED)

    def make(self) -> Original:
        """One more of the same kind."""
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):  # it has much to tell
            return _HoverOriginal(self._class(pyb_freq=PHYSICS_RATE, ctrl_freq=CONTROL_RATE), self._start_range)


class _HoverOriginal(Original):
    def __init__(self, environment: Any, start_range: float) -> None:
        self.environment, self._start_range = environment, start_range
        self._start = environment.INIT_XYZS.copy()
        environment.EPISODE_LEN_SEC = np.inf  # the time limit is ours

    def begin(self, seed: int) -> Float64[ndarray, " numbers"]:
        offset = self._start_range * np.random.default_rng(seed).uniform(-1.0, 1.0, 3)
        self.environment.INIT_XYZS = self._start + np.abs(offset) * (0, 0, 1) + offset * (1, 1, 0)  # never below
        past = self.environment.action_buffer  # which the original does not empty
        past.extend(np.zeros((1, 4)) for _ in range(len(past)))
        return self.environment.reset(seed=seed)[0][0].astype(np.float64)

    def step(self, action: Float64[ndarray, " action"]) -> Outcome:
        observation, reward, terminated, outside, _ = self.environment.step(action.astype(np.float32)[None])
        distance = np.linalg.norm(self.environment.TARGET_POS - self.environment.pos[0])
        return Outcome(observation[0].astype(np.float64), float(reward), bool(distance < NEAR), terminated or outside)

    def pose(self) -> Pose:
        x, y, z, w = self.environment.quat[0]
        position, orientation = self.environment.pos[0], (w, x, y, z)
        rates = pybullet.rotateVector(pybullet.invertTransform((0, 0, 0), (x, y, z, w))[1], self.environment.ang_v[0])
        qpos, qvel = np.array([*position, *orientation]), np.array([*self.environment.vel[0], *rates])
        return Pose(qpos, qvel, self.environment.TARGET_POS[None], np.array([[1.0, 0.0, 0.0, 0.0]]))
