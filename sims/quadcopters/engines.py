"""The table of quadcopter engines: one contract, one state convention, three physics."""

from collections.abc import Mapping

import mujoco

from alula.core.errors import ConfigError
from alula.sims.engine import Engine
from alula.sims.quadcopters.config import ENGINES, Aerodynamics


def make_quadcopter_engine(
    kind: str,
    model: mujoco.MjModel,
    num_envs: int,
    num_drones: int,
    substeps: int,
    extras: Mapping[str, tuple[int, ...]],
    aerodynamics: Aerodynamics,
    num_threads: int | None,
) -> Engine:
    """Physics of `num_envs` environments with `num_drones` Crazyflies each.

    The state is that of MuJoCo's free joints in all engines, drone after drone: `qpos` position [m] and quaternion
    wxyz, `qvel` velocity in the world [m/s] and angular velocity in the body [rad/s]; `ctrl` commanded rotor speeds
    and `extras["rotor_speed"]` actual ones [rad/s], zero after `reset_to_model`.

    Args:
        kind: One of `ENGINES`.
        model: The scene: drones from `add_crazyflie` first, a floor at height zero named "floor", and mocap bodies.
        num_envs: Number of environments.
        num_drones: Crazyflies per environment.
        substeps: Physics steps, of the model's timestep, per control step.
        extras: Task-owned arrays by name: shape of one environment's entry.
        aerodynamics: Effects that are on.
        num_threads: Physics threads of engines that have them; default all cores. Results do not depend on it.

    Raises:
        ConfigError: there is no such engine.
    """
    extras = {"rotor_speed": (4 * num_drones,), **extras}
    # An engine's library loads when it is asked for; Bullet's prints a line about itself.
    match kind:
        case "mujoco":
            from alula.sims.quadcopters.mujoco_engine import QuadcopterMujocoEngine

            return QuadcopterMujocoEngine(model, num_envs, num_drones, substeps, extras, aerodynamics, num_threads)
        case "bullet":
            from alula.sims.quadcopters.bullet_engine import QuadcopterBulletEngine

            return QuadcopterBulletEngine(model, num_envs, num_drones, substeps, extras, aerodynamics)
        case "torch":
            from alula.sims.quadcopters.torch_engine import QuadcopterTorchEngine

            return QuadcopterTorchEngine(model, num_envs, num_drones, substeps, extras, aerodynamics)
    raise ConfigError(f"there is no quadcopter engine {kind!r}; allowed are {', '.join(ENGINES)}")
