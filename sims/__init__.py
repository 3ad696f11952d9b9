"""Simulated environments: one batched engine, tasks on it, and their rendering.

Importing this makes every task known to `gymnasium.make` and `gymnasium.make_vec`; no model or physics loads yet.
"""

from alula.sims.registration import register_envs

register_envs()
