"""Adapters: four of Gymnasium's MuJoCo environments, version 5, with their models, observations, rewards and ends.

Source of all numbers: Gymnasium's documentation of these environments. Origins: Erez, Tassa & Todorov 2011 (Hopper,
Walker2d), Wawrzyński 2009 (HalfCheetah), Schulman et al. 2016 (Ant).
"""

from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray

from alula.core.seeding import BatchRng
from alula.sims.engine import BatchState
from alula.sims.tasks.locomotion.base import Element, LocomotionTask, normal, uniform
from alula.sims.tasks.locomotion.engine import ContactEngine


class Hopper(LocomotionTask):
    """Hopper-v5: one leg, 3 motors at 125 Hz."""

    file = "hopper.xml"
    gait = "hopper"
    substeps = 4
    speed_limit = 10.0
    effort_weight = 1e-3
    start_noise = 5e-3
    velocity_noise = staticmethod(uniform)

    def healthy(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Above 0.7 m, within 0.2 rad of upright, and nothing but the position beyond 100 of its unit."""
        height, angle = state.qpos[:, 1], state.qpos[:, 2]
        bounded = (np.abs(state.qpos[:, 2:]) < 100.0).all(axis=1) & (np.abs(state.qvel) < 100.0).all(axis=1)
        return bounded & (height > 0.7) & (np.abs(angle) < 0.2)


class Walker2d(LocomotionTask):
    """Walker2d-v5: two legs in a plane, 6 motors at 125 Hz."""

    file = "walker2d_v5.xml"
    gait = "walker2d"
    substeps = 4
    speed_limit = 10.0
    effort_weight = 1e-3
    start_noise = 5e-3
    velocity_noise = staticmethod(uniform)

    def healthy(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Between 0.8 m and 2 m high, and within 1 rad of upright."""
        height, angle = state.qpos[:, 1], state.qpos[:, 2]
        return (height > 0.8) & (height < 2.0) & (np.abs(angle) < 1.0)


class HalfCheetah(LocomotionTask):
    """HalfCheetah-v5: a torso on two legs in a plane, 6 motors at 20 Hz; never falls by definition."""

    file = "half_cheetah.xml"
    gait = "half_cheetah"
    substeps = 5
    effort_weight = 0.1
    survival_reward = 0.0
    start_noise = 0.1
    velocity_noise = staticmethod(normal)


class Ant(LocomotionTask):
    """Ant-v5: four legs in space, 8 motors at 20 Hz; feels what touches it.

    Speed and contacts are those that `ContactEngine` describes.
    """

    file = "ant.xml"
    gait = "ant"
    substeps = 5
    hidden = 2
    effort_weight = 0.5
    start_noise = 0.1
    velocity_noise = staticmethod(normal)
    contact_weight = 5e-4
    """Price of one newton, or newton metre, of contact on one axis of one body."""
    contact_limit = 1.0
    """Contact forces and torques are clipped to this [N, N m]."""
    extras = MappingProxyType({**LocomotionTask.extras, "torso": (3,), "cfrc_ext": (14, 6)})

    def make_engine(self, num_envs: int, num_threads: int | None) -> ContactEngine:
        """The engine that tells contact forces."""
        return ContactEngine(self.model, num_envs, self.substeps, self.extras, num_threads)

    def elements(self) -> list[Element]:
        """Also the wrench on each body but the world."""
        wrench = [(f"{part}_{axis}", unit) for part, unit in (("torque", "N m"), ("force", "N")) for axis in "xyz"]
        bodies = [self.model.body(body).name or f"body_{body}" for body in range(1, self.model.nbody)]
        return super().elements() + [(f"{body}_{name}", unit) for body in bodies for name, unit in wrench]

    def position(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        """The torso's, as the integrator left it."""
        return state.extras["torso"][:, 0]

    def healthy(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Between 0.2 m and 1 m high."""
        height = state.qpos[:, 2]
        return (height >= 0.2) & (height <= 1.0)

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Near the model's initial state, touched by nothing yet."""
        super().reset(state, env_ids, rng)
        state.extras["torso"][env_ids] = state.qpos[env_ids, :3]

    def observe(self, state: BatchState) -> dict[str, Float64[ndarray, "num_envs field"]]:
        """Also the wrenches."""
        (seen,) = super().observe(state).values()
        felt = self.contacts(state)[:, 1:].reshape(len(seen), -1)
        return {"observation.state": np.concatenate((seen, felt), axis=1)}

    def contacts(self, state: BatchState) -> Float64[ndarray, "num_envs nbody 6"]:
        """Torque and force on every body, clipped."""
        return np.clip(state.extras["cfrc_ext"], -self.contact_limit, self.contact_limit)

    def rewards(self, state: BatchState) -> dict[str, Float[ndarray, " num_envs"]]:
        """Also less the contacts."""
        contact = np.square(self.contacts(state)).sum(axis=(1, 2))
        return super().rewards(state) | {"reward_contact": -self.contact_weight * contact}
