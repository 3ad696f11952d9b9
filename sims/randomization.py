"""Domain randomisation: every episode has its own physics, delay and noise (Tobin et al. 2017; Peng et al. 2018).

All of it is part of the exact state: the factors, the delay and the actions under way are arrays beside the task's
own, and the noise of an observation is a function of the environment's random stream and clock.
"""

import numpy as np
from jaxtyping import Float32, Int64, UInt64
from numpy import ndarray

from alula.core.seeding import BatchRng, box_muller, mix
from alula.core.transitions import Observation
from alula.sims.config import Randomization
from alula.sims.engine import BatchState, Engine


class Randomizer:
    """Draws and applies what a `Randomization` asks for.

    Args:
        config: How far episodes may differ.
        engine: Physics of the batch; gets further arrays in its state, and varies its models by them.
        action_size: Elements of an action.

    Raises:
        ConfigError: the engine cannot vary its physics.
    """

    def __init__(self, config: Randomization, engine: Engine, action_size: int) -> None:
        self.config = config
        extras, count = engine.state.extras, engine.num_envs
        self._widths = engine.vary(config.physics) if config.physics else np.zeros(0)
        if len(self._widths):
            extras["factors"] = np.ones((count, len(self._widths)))
        if config.latency:
            extras["latency"] = np.zeros((count, 1))
            extras["pending"] = np.zeros((count, config.latency + 1, action_size))

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Draw anew for episodes that begin."""
        if len(self._widths):
            unit = rng.uniform(env_ids, -1.0, 1.0, len(self._widths))
            state.extras["factors"][env_ids] = 1.0 + self._widths * unit
        if self.config.latency:
            state.extras["latency"][env_ids] = np.floor(rng.uniform(env_ids, 0, self.config.latency + 1, 1))

    def delayed(
        self, state: BatchState, actions: Float32[ndarray, "num_envs action"]
    ) -> Float32[ndarray, "num_envs action"]:
        """What reaches the actuators now, when `actions` are sent."""
        if not self.config.latency:
            return actions
        pending = state.extras["pending"]
        pending[:, 1:] = np.where((state.time == 0.0)[:, None, None], actions[:, None], pending[:, :-1])
        pending[:, 0] = actions
        delay = state.extras["latency"][:, 0].astype(np.int64)
        return pending[np.arange(len(actions)), delay].astype(np.float32)

    def noisy(
        self,
        observation: Observation,
        keys: UInt64[ndarray, " batch"],
        counters: UInt64[ndarray, " batch"],
        elapsed: Int64[ndarray, " batch"],
    ) -> Observation:
        """The observation with its noise: the same for the same stream (`keys`, `counters`) and clock."""
        if not self.config.observation_noise:
            return observation
        stream = BatchRng(mix(keys + mix(counters ^ mix(elapsed.astype(np.uint64)))), np.zeros_like(counters))
        rows = np.arange(len(elapsed))
        noisy = {}
        for name, value in observation.items():
            if value.dtype.kind != "f":
                noisy[name] = value
                continue
            unit = stream.uniform(rows, 0.0, 1.0, 2 * value[0].size)
            noise = box_muller(unit, self.config.observation_noise).reshape(value.shape)
            noisy[name] = (value + noise).astype(value.dtype)
        return noisy
