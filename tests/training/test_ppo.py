"""PPO on traces: ratios start at one, every decision is used, nothing depends on interruptions, and it learns."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Generator, Tensor, nn

from alula.core.errors import ConfigError
from alula.policies.conditioners import StateConditioner
from alula.policies.config import GaussianPolicyConfig
from alula.policies.policy import GenerativePolicy, Policy
from alula.policies.processes.gaussian import GaussianProcess
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.algorithms import make_trainer, prepare
from alula.training.checkpoint import load_state, save_state, weights_hash
from alula.training.config import PPOConfig
from alula.training.evaluation import evaluate
from alula.training.loop import Interrupted, fit
from alula.training.objectives import ppo_loss
from alula.training.ppo import PPO
from alula.training.run import Run, read_metrics
from alula.training.value import ValueModel

MakeBase = Callable[..., GenerativePolicy]
MakeTask = Callable[..., Task]
Tiny = Callable[..., PPOConfig]


@pytest.fixture
def make_ppo(make_base: MakeBase, tiny: Tiny, base_of: dict[str, str], peg: Task) -> Callable[..., PPO]:
    """`make_ppo(algorithm, seed, task, **settings)`: a trainer on PegInsertion unless another task is given."""

    def make(algorithm: str, seed: int = 0, task: Task | None = None, **settings: Any) -> PPO:
        config = tiny(algorithm, **settings)
        task = task or peg
        environments = TaskVectorEnv(task, config.num_envs, AutoresetMode.SAME_STEP)
        return make_trainer(config, make_base(base_of[algorithm], task), environments, seed)

    return make


def tensors(tree: Any, path: str = "") -> dict[str, bytes]:
    """Every leaf of a training state as bytes, but for the wall clock."""
    if isinstance(tree, dict):
        return {key: value for name in tree for key, value in tensors(tree[name], f"{path}/{name}").items()}
    if path.startswith("/seconds"):
        return {}
    return {path: np.asarray(tree.detach() if isinstance(tree, Tensor) else tree).tobytes()}


def test_the_first_ratio_is_one(make_ppo: Callable[..., PPO], algorithm: str, tmp_path: Path) -> None:
    """Before the first update of every iteration no density has changed, also right after resuming."""
    trainer = make_ppo(algorithm)
    for _ in range(2):
        assert trainer.iterate()["actor/first_ratio_error"] <= 1e-5
    save_state(tmp_path, trainer.state_dict())
    resumed = make_ppo(algorithm)
    resumed.load_state_dict(load_state(tmp_path))
    assert resumed.iterate()["actor/first_ratio_error"] <= 1e-5


def test_the_densities_do_change_afterwards(make_ppo: Callable[..., PPO], algorithm: str) -> None:
    """Else a ratio of one would say nothing: after an iteration its own traces score differently."""
    trainer = make_ppo(algorithm, actor_learning_rate=1e-2)
    rollout = trainer._estimate(*trainer._collect()[:3])
    before = trainer.policy.log_prob(rollout.observation, rollout.trace)
    torch.testing.assert_close(before, rollout.trace.log_prob, rtol=1e-5, atol=1e-5)
    trainer._update(rollout)
    after = trainer.policy.log_prob(rollout.observation, rollout.trace)
    assert (after - before).abs().max() > 1e-2


def test_observations_of_double_precision_are_learned_from(
    make_ppo: Callable[..., PPO], task_of_kind: MakeTask, algorithm: str
) -> None:
    """What is observed in double precision gives the very weights that it gives in single precision."""
    single, double = (make_ppo(algorithm, task=task_of_kind(kind)) for kind in ("line", "precise"))
    for trainer in (single, double):
        trainer.iterate()
    assert tensors(double.policy.state_dict()) == tensors(single.policy.state_dict())
    assert tensors(double.value.state_dict()) == tensors(single.value.state_dict())


def test_every_pair_is_used_once_an_epoch(
    make_ppo: Callable[..., PPO], algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All (decision, trainable step) pairs for the actor and all decisions for the critic, in minibatches."""
    trainer = make_ppo(algorithm, epochs=3, minibatch=7)
    actor: list[tuple[int, int]] = []
    critic: list[int] = []
    actor_step, critic_step = trainer._actor_step, trainer._critic_step

    def count_pairs(rollout: Any, rows: Tensor, columns: Tensor, *rest: Any) -> Any:
        assert len(rows) <= 7
        actor.extend(zip(rows.tolist(), columns.tolist(), strict=True))
        return actor_step(rollout, rows, columns, *rest)

    def count_rows(rollout: Any, rows: Tensor) -> Any:
        critic.extend(rows.tolist())
        return critic_step(rollout, rows)

    monkeypatch.setattr(trainer, "_actor_step", count_pairs)
    monkeypatch.setattr(trainer, "_critic_step", count_rows)
    rollout = trainer._estimate(*trainer._collect()[:3])
    trainer._update(rollout)
    decisions, chain = rollout.trace.steps.shape
    every = [(row, column) for row in range(decisions) for column in range(chain)]
    for epoch in range(3):
        assert sorted(actor[epoch * len(every) : (epoch + 1) * len(every)]) == every
        assert sorted(critic[epoch * decisions : (epoch + 1) * decisions]) == list(range(decisions))
    assert len(actor) == 3 * len(every)


def test_advantages_belong_to_their_decisions(make_ppo: Callable[..., PPO], algorithm: str) -> None:
    """Values are of the observations that were decided on: target minus value is the advantage, before scaling."""
    trainer = make_ppo(algorithm)
    steps, decisions, finals, _ = trainer._collect()
    rollout = trainer._estimate(steps, decisions, finals)
    assert steps.truncated.any()
    values = trainer.value.predict(rollout.observation)
    raw = rollout.target - values
    expected = (raw - raw.mean()) / (raw.std(correction=0) + 1e-8)
    torch.testing.assert_close(rollout.advantage, expected, rtol=1e-3, atol=1e-4)
    order = [(t, env) for t, decision in _timed(steps.decided, decisions) for env in decision.env_ids]
    assert order == [tuple(pair) for pair in np.argwhere(steps.decided).tolist()]


def test_truncation_is_worth_what_its_own_last_observation_is(
    make_ppo: Callable[..., PPO], algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each truncated step gets V of the observation it led to, before the reset; the rollout's end V of the last one.

    Clocks are random, so that episodes are truncated at different steps.
    """
    trainer = make_ppo(algorithm)
    step, last = trainer.environments.step, []

    def record(actions: np.ndarray) -> Any:
        result = step(actions)
        last.append(result[4].get("final_obs", result[0]))
        return result

    monkeypatch.setattr(trainer.environments, "step", record)
    steps, decisions, finals, _ = trainer._collect()
    trainer._estimate(steps, decisions, finals)
    times, envs = np.nonzero(steps.truncated)
    assert len(set(times.tolist())) > 1
    assert len(set(envs.tolist())) > 1
    for t, env in zip(times, envs, strict=True):
        seen = {name: torch.from_numpy(values[env : env + 1]) for name, values in last[t].items()}
        assert steps.final_value[t, env] == pytest.approx(trainer.value.predict(seen).item(), abs=1e-6)
    present = {name: torch.from_numpy(values) for name, values in trainer.observation.items()}
    np.testing.assert_allclose(steps.next_value, trainer.value.predict(present).numpy(), atol=1e-6)


def _timed(decided: np.ndarray, decisions: list[Any]) -> list[tuple[int, Any]]:
    return list(zip(np.flatnonzero(decided.any(axis=1)).tolist(), decisions, strict=True))


def test_the_critic_warms_up_alone(make_ppo: Callable[..., PPO], algorithm: str) -> None:
    """During the first iterations the policy keeps every bit; then it moves."""
    trainer = make_ppo(algorithm, critic_warmup=2)
    before, value = tensors(trainer.policy.state_dict()), tensors(trainer.value.state_dict())
    for _ in range(2):
        assert "actor/kl" not in trainer.iterate()
    assert tensors(trainer.policy.state_dict()) == before
    assert tensors(trainer.value.state_dict()) != value
    assert "actor/kl" in trainer.iterate()
    assert tensors(trainer.policy.state_dict()) != before


def test_a_large_kl_ends_the_actors_epochs(make_ppo: Callable[..., PPO], algorithm: str) -> None:
    """After the first minibatch beyond the target no other one is taken in that iteration."""
    trainer = make_ppo(algorithm, target_kl=-1.0, epochs=4)
    assert trainer.iterate()["actor/updates"] == 1.0


@pytest.mark.parametrize("warmup", [0, 3])
def test_resuming_continues_bit_for_bit(
    make_ppo: Callable[..., PPO], algorithm: str, warmup: int, tmp_path: Path
) -> None:
    """Two iterations, a trip through files into fresh objects, and two more equal four in one go, in every tensor.

    With a long warm-up the state is saved before the actor's optimiser has any.
    """
    whole = make_ppo(algorithm, critic_warmup=warmup)
    for _ in range(4):
        whole.iterate()
    first = make_ppo(algorithm, critic_warmup=warmup)
    for _ in range(2):
        first.iterate()
    save_state(tmp_path, first.state_dict())
    second = make_ppo(algorithm, critic_warmup=warmup)
    second.iterate()
    second.load_state_dict(load_state(tmp_path))
    for _ in range(2):
        second.iterate()
    assert tensors(second.state_dict()) == tensors(whole.state_dict())
    assert second.progress == whole.progress == 4 * 48


def run_of(folder: Path, algorithm: str, resume: bool = False) -> Run:
    """A run folder."""
    return Run(folder, {"algorithm": algorithm}, {}, resume)


def test_the_same_seed_gives_the_same_checkpoint(make_ppo: Callable[..., PPO], algorithm: str, tmp_path: Path) -> None:
    """To the last bit; another seed gives another one."""
    hashes = []
    for index, seed in enumerate((0, 0, 1)):
        run = run_of(tmp_path / str(index), algorithm)
        fit(make_ppo(algorithm, seed), run)
        run.close()
        hashes.append(weights_hash(run.folder))
    assert hashes[0] == hashes[1] != hashes[2]


def test_ctrl_c_saves_and_resuming_ends_at_the_same_weights(
    make_ppo: Callable[..., PPO], algorithm: str, tmp_path: Path, peg: Task
) -> None:
    """A signal during an evaluation, between checkpoints: what was done is saved, and the end is that of one go."""
    handler = signal.getsignal(signal.SIGINT)
    whole = run_of(tmp_path / "whole", algorithm)
    fit(make_ppo(algorithm, checkpoint_every=3), whole, _score(peg, None))
    run = run_of(tmp_path / "cut", algorithm)
    with pytest.raises(Interrupted):
        fit(make_ppo(algorithm, checkpoint_every=3), run, _score(peg, interrupt_at=2))
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step_96"]
    assert signal.getsignal(signal.SIGINT) is handler
    run.close()
    again = run_of(tmp_path / "cut", algorithm, resume=True)
    fit(make_ppo(algorithm, checkpoint_every=3), again, _score(peg, None))
    assert weights_hash(again.folder) == weights_hash(whole.folder)
    timeless = [
        [{name: value for name, value in line.items() if name != "seconds"} for line in read_metrics(run.folder)]
        for run in (whole, again)
    ]
    assert timeless[0] == timeless[1]
    again.close()
    whole.close()


def _score(task: Task, interrupt_at: int | None) -> Callable[[Policy], dict[str, float]]:
    calls = 0

    def score(policy: Policy) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == interrupt_at:
            signal.raise_signal(signal.SIGINT)
        return {"evaluation/success": evaluate(policy, task, [1, 2]).rate}

    return score


def test_preparing_leaves_the_base_as_it_is(
    make_ppo: Callable[..., PPO], make_base: MakeBase, tiny: Tiny, base_of: dict[str, str], algorithm: str, line: Task
) -> None:
    """Fine-tuning never changes the policy it started from, nor whether that can be trained."""
    base = make_base(base_of[algorithm], line)
    before = tensors(base.state_dict())
    config = tiny(algorithm, actor_learning_rate=1e-2)
    trainer = make_trainer(config, base, TaskVectorEnv(line, config.num_envs, AutoresetMode.SAME_STEP), 0)
    trainer.iterate()
    assert tensors(base.state_dict()) == before
    assert all(value.requires_grad for value in base.field.parameters())


@pytest.mark.parametrize("trainable", [0, 1, 4])
def test_dppo_trains_as_many_steps_as_told(make_ppo: Callable[..., PPO], line: Task, trainable: int) -> None:
    """One, all, and 0 for all; losses stay finite."""
    trainer = make_ppo("dppo", task=line, trainable_steps=trainable)
    decisions = trainer._collect()[1]
    assert decisions[0].trace.steps.shape[1] == (trainable or 4)
    metrics = trainer.iterate()
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["actor/first_ratio_error"] <= 1e-5


def test_dppo_starts_as_the_cloned_network(make_base: MakeBase, tiny: Tiny, line: Task) -> None:
    """Trained and frozen steps have the base's weights, and its scaling."""
    base = make_base("diffusion", line)
    policy = prepare(tiny("dppo"), base, 0)
    assert isinstance(policy, GenerativePolicy)
    assert policy.frozen_field is not None
    for field in (policy.field, policy.frozen_field):
        assert tensors(field.state_dict()) == tensors(base.field.state_dict())
    assert tensors(policy.conditioner.state_dict()) == tensors(base.conditioner.state_dict())
    assert tensors(policy.action_normalizer.state_dict()) == tensors(base.action_normalizer.state_dict())


@pytest.mark.parametrize(("algorithm", "base"), [("dppo", "gaussian"), ("gaussian_ppo", "diffusion")])
def test_an_algorithm_that_does_not_fit_names_one_that_does(
    make_base: MakeBase, tiny: Tiny, line: Task, algorithm: str, base: str
) -> None:
    """The message says what the policy is, and which algorithm takes it."""
    with pytest.raises(ConfigError, match="algorithm=residual_ppo"):
        prepare(tiny(algorithm), make_base(base, line), 0)


def test_a_residual_policy_is_no_base(make_base: MakeBase, tiny: Tiny, line: Task) -> None:
    """Fine-tuning starts from a cloned policy."""
    residual = prepare(tiny("residual_ppo"), make_base("gaussian", line), 0)
    with pytest.raises(ConfigError, match="already a residual"):
        prepare(tiny("residual_ppo"), residual, 0)


def test_a_rollout_must_hold_a_decision(make_ppo: Callable[..., PPO], line: Task) -> None:
    """Shorter than a chunk, a rollout could be empty."""
    with pytest.raises(ConfigError, match="rollout_steps is 1"):
        make_ppo("gaussian_ppo", task=line, rollout_steps=1)


@pytest.mark.parametrize("algorithm", ["gaussian_ppo", pytest.param("dppo", marks=pytest.mark.slow)])
def test_a_bandit_is_solved(
    make_base: MakeBase, tiny: Tiny, base_of: dict[str, str], task_of_kind: MakeTask, algorithm: str
) -> None:
    """Within 100 iterations of one-step episodes the mean path earns 95 % of the optimum, from under 30 %.

    DPPO's median of three seeds: so small a chain can get stuck with a part of its mass clipped away from the optimum.
    """
    task = task_of_kind("bandit", 1)
    settings = {"horizon": 1, "execute_steps": 1}
    if algorithm == "gaussian_ppo":
        settings |= {"initial_std": 0.3}
    base = make_base(base_of[algorithm], task, **settings)
    sizes = {"num_envs": 128, "rollout_steps": 2, "minibatch": 256, "epochs": 8, "gae_lambda": 1.0, "joint_clip": 0.3}
    sizes |= {"actor_learning_rate": 5e-3, "critic_learning_rate": 1e-2, "actor_warmup": 10}
    if algorithm == "dppo":
        sizes |= {"sampling_steps": 3, "trainable_steps": 3}
    config = tiny(algorithm, **sizes)
    values = []
    for seed in range(3 if algorithm == "dppo" else 1):
        trainer = make_trainer(config, base, TaskVectorEnv(task, 128, AutoresetMode.SAME_STEP), seed)
        assert _value(trainer, task) < 0.3
        for _ in range(100):
            trainer.iterate()
        values.append(_value(trainer, task))
    assert np.median(values) >= 0.95


def _value(trainer: PPO, task: Task) -> float:
    """Mean reward of a thousand episodes on the mean path."""
    environments = TaskVectorEnv(task, 1000, AutoresetMode.DISABLED)
    observation, _ = environments.reset(seed=0)
    policy = trainer.trained_policy()
    actions, _, _ = policy.act(observation, policy.memory(1000), Generator().manual_seed(0), stochastic=False)
    reward = environments.step(actions)[1]
    environments.close()
    return float(reward.mean())


class LinearField(nn.Module):
    """u = gain x observation: the only parameter of a linear feedback."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, noisy: Tensor, step: Tensor, features: Tensor) -> Tensor:
        return self.gain * features[:, None, :1]


class Quadratic(nn.Module):
    """V(x) = a + b x^2: the shape of a regulator's cost-to-go."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(1, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features[:, :1] ** 2)


def regulator(task: Task, gain: float, config: PPOConfig) -> PPO:
    """PPO of a linear feedback with a quadratic critic, unscaled."""
    settings = GaussianPolicyConfig(horizon=1, execute_steps=1, initial_std=0.1)
    conditioner = StateConditioner(task.observation)
    policy = GenerativePolicy(
        settings, task.observation, task.action, LinearField(gain), GaussianProcess(0.1, 1, False), conditioner
    )
    torch.manual_seed(0)
    value = ValueModel(StateConditioner(task.observation), 4)
    value.layers = Quadratic()  # type: ignore[assignment]
    return PPO(policy, value, TaskVectorEnv(task, config.num_envs, AutoresetMode.SAME_STEP), config, 0)


@pytest.mark.slow
def test_the_regulator_finds_its_gain(tiny: Tiny, task_of_kind: MakeTask) -> None:
    """X' = x + u at cost x^2 + u^2 and discount 0.99: the feedback gain approaches 0.6153, within 3 %."""
    sizes = {"num_envs": 256, "rollout_steps": 20, "minibatch": 1024, "epochs": 4, "discount": 0.99}
    sizes |= {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-2, "critic_warmup": 10, "joint_clip": 0.3}
    trainer = regulator(task_of_kind("regulator", 20), -0.2, tiny("gaussian_ppo", **sizes))
    gains = []
    for _ in range(200):
        trainer.iterate()
        gains.append(-trainer.policy.field.gain.item())
    assert np.mean(gains[-40:]) == pytest.approx(0.615251, rel=0.03)


def test_the_policy_gradient_points_where_reinforce_does(make_base: MakeBase, line: Task) -> None:
    """On a linear reward r = c . u the gradient in the mean is c exactly; many samples agree, cosine above 0.99."""
    policy = make_base("gaussian", line, execute_steps=4, initial_std=0.3)
    count, direction = 100_000, torch.tensor([1.0, -2.0, 0.5, 3.0])
    observation = {"observation.state": torch.full((count, 1), 0.4)}
    _, trace = policy.sample(observation, Generator().manual_seed(0), stochastic=True)
    reward = trace.noisy[:, 1, :, 0] @ direction
    log_prob = policy.log_prob(observation, trace)[:, 0]
    advantage = reward - reward.mean()
    ppo_loss(log_prob, trace.log_prob[:, 0], advantage, torch.full((count,), 0.2), 4).loss.backward()
    found = -policy.field.output.bias.grad
    torch.testing.assert_close(found, direction, rtol=0.05, atol=0.05)
    assert torch.cosine_similarity(found, direction, dim=0) > 0.99
