"""Score a controller that knows nothing of alula: any function of observations, in a batch of environments.

The one here moves towards where the socket was measured and pushes down. The measurement is wrong by about a
millimetre, twice the clearance, so it often misses; `--random` shows what chance achieves.
"""

import argparse

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

import alula.sims  # noqa: F401 (makes the environments known to Gymnasium)

GAIN = 0.5
"""Share of the distance to the socket that one step covers."""


def controller(observation: dict[str, np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Steps in x, y, z and yaw, one row per environment, for the peg's displacement from the measured socket."""
    displacement = observation["observation.environment_state"][:, 4:8]
    action = -GAIN * displacement
    aligned = np.linalg.norm(displacement[:, :2], axis=1) < 0.001
    action[:, 2] = np.where(aligned, low[:, 2], 0.0)
    return np.clip(action, low, high)


def main() -> None:
    """Run one episode in each environment and count the successes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--random", action="store_true", help="random actions instead of the controller")
    arguments = parser.parse_args()

    environments = gymnasium.make_vec(
        "alula/PegInsertion-v0", num_envs=arguments.episodes, autoreset_mode=AutoresetMode.DISABLED
    )
    actions = environments.action_space
    actions.seed(0)
    observation, _ = environments.reset(seed=[1_000_000 + episode for episode in range(arguments.episodes)])
    success = np.zeros(arguments.episodes, dtype=bool)
    running = np.ones(arguments.episodes, dtype=bool)
    while running.any():
        action = actions.sample() if arguments.random else controller(observation, actions.low, actions.high)
        observation, _, terminated, truncated, info = environments.step(action)
        success |= running & info["success"]
        running &= ~(terminated | truncated)
    environments.close()
    print(f"{success.sum()} of {arguments.episodes} episodes succeeded")


if __name__ == "__main__":
    main()
