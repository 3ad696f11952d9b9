"""Words on the command line become typed configurations, or an error that says what would have been right."""

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml

import alula.configs
from alula.configs.compose import GROUPS, choice, compose_config, plain, words_of
from alula.configs.schemas import COMMANDS, DemoConfig
from alula.core.errors import ConfigError
from alula.policies.config import DiffusionPolicyConfig, GaussianPolicyConfig
from alula.policies.registry import POLICIES
from alula.sims.registry import TASKS
from alula.training.config import ALGORITHMS, DPPOConfig, ResidualPPOConfig

PRESETS = Path(alula.configs.__path__[0]) / "presets"
TUNED = sorted(path.stem for path in (PRESETS / "tuned").glob("*.yaml"))
# Command, words, and what the message must hold: where it is, what is nearest, what is valid.
MISTAKES = {
    "unknown key": ("train", ["sed=1"], ["'sed'", "Did you mean 'seed'?", "cloning", "resume"]),
    "unknown nested key": (
        "demo",
        ["algorithm.totl_steps=3"],
        ["'algorithm.totl_steps'", "Did you mean 'algorithm.total_steps'?", "algorithm.num_envs"],
    ),
    "unknown key two levels down": (
        "demo",
        ["algorithm.head.scael=1"],
        ["Did you mean 'algorithm.head.scale'?", "algorithm.head.initial_std"],
    ),
    "unknown task": ("demo", ["task=adroit_dor"], ["Did you mean 'adroit_door'?", "peg_insertion"]),
    "unknown policy": ("train", ["policy=difusion"], ["Did you mean 'diffusion'?", "gaussian"]),
    "unknown algorithm": ("finetune", ["algorithm=dpo"], ["Did you mean 'dppo'?", "residual_ppo"]),
    "a preset is no choice": ("demo", ["policy=for_adroit_door"], ["'for_adroit_door'", "diffusion, gaussian"]),
    "a group that the command lacks": ("train", ["algorithm=dppo"], ["'algorithm'", "cloning, data, fields"]),
    "a key of a choice not made": (
        "finetune",
        ["algorithm=dppo", "algorithm.head.scale=1"],
        ["'algorithm.head.scale'", "algorithm.trainable_steps"],
    ),
    "a key of a group without a choice": (
        "evaluate",
        ["task.clearance=0.001"],
        ["'task.clearance'", "task=NAME", "peg_insertion, reach"],
    ),
    "a key below a value": ("demo", ["cloning.steps.x=1"], ["'cloning.steps' is a single value", "'x'"]),
    "a value for a group of keys": ("demo", ["cloning=3"], ["cloning", "BCConfig"]),
    "text for a count": ("demo", ["episodes=many"], ["episodes", "'many'", "Integer"]),
    "a fraction for a count": ("demo", ["seed=1.5"], ["seed", "'1.5'", "Integer"]),
    "several values": ("demo", ["episodes=1,2"], ["episodes", "1,2"]),
    "an unreadable value": ("demo", ["episodes={"], ["episodes", "'{'"]),
    "no episodes": ("demo", ["episodes=0"], ["episodes is 0", "at least 1"]),
    "a negative count": ("evaluate", ["evaluation.videos=-1"], ["evaluation.videos is -1", "at least 0"]),
    "a negative seed": ("train", ["seed=-1"], ["seed is -1", "0 to"]),
    "not a number": ("collect", ["expert_noise=nan"], ["expert_noise is nan", "at least 0"]),
    "out of a group's range": (
        "collect",
        ["task=peg_insertion", "task.clearance=1"],
        ["task.clearance is 1.0 m", "0.0001 m to 0.005 m"],
    ),
    "two settings that do not fit": (
        "train",
        ["policy.horizon=4"],
        ["policy.execute_steps is 8", "[1, horizon=4]"],
    ),
    "mappings in a list": ("record", ["cameras=[{name:front}]"], ["cameras is [{name:front}]", "single values"]),
    "a bare word": ("demo", ["quickly"], ["'quickly' is not a setting", "key=value"]),
    "a bare word too many": ("inspect", ["a.zarr", "b.zarr"], ["'b.zarr' is not a setting", "key=value"]),
    "Hydra's adding": ("demo", ["+x=1"], ["'+x'", "episodes", "seed"]),
    "Hydra's own settings": ("demo", ["hydra.run.dir=x"], ["'hydra.run.dir'", "episodes", "seed"]),
    "nothing before the sign": ("demo", ["=3"], ["''", "episodes", "seed"]),
}
TEXTS = (
    *("runs/a b", "a=b.zarr", "a,b.zarr", "{x}[y](z).zarr", "007", "1e3", "true", "it's", 'say "hi"', "back\\"),
    *("'", "\\'", "a:b", "~/x", "@x", "", "[a]", "ü"),
)


def settings(config: Any, prefix: str = "") -> set[str]:
    """Dotted names of all values in nested plain mappings."""
    found: set[str] = set()
    for key, value in config.items():
        found |= settings(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_without_words(command: str) -> None:
    """The defaults of a command are a valid configuration of its own type."""
    assert type(compose_config(command, [])) is COMMANDS[command]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names])
def test_every_choice_of_every_group_composes(group: str, name: str) -> None:
    """Whatever a group offers can be chosen by name, and is what one gets."""
    command = next(command for command, schema in COMMANDS.items() if group in schema.__dataclass_fields__)
    chosen = getattr(compose_config(command, [f"{group}={name}"]), group)
    assert type(chosen) is GROUPS[group][name]
    assert choice(group, chosen) == name


def test_values_have_the_types_of_their_settings() -> None:
    """Whole numbers, fractions, truth values, texts and null arrive as what they are."""
    words = ["seed=7", "cloning.learning_rate=1e-4", "resume=true", "data=a.zarr", "run=null", "cloning.warmup_steps=0"]
    config = compose_config("demo", words)
    assert (config.seed, config.cloning.learning_rate, config.resume) == (7, 1e-4, True)
    assert (config.data, config.run, config.cloning.warmup_steps) == ("a.zarr", None, 0)
    assert type(compose_config("demo", ["expert_noise=1"]).expert_noise) is float


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_as_it_stands(text: str) -> None:
    """No path is too strange: what is written after the sign is what the command gets."""
    assert compose_config("train", [f"data={text}"]).data == text


def test_quotes_around_a_text_may_stay() -> None:
    """Whoever writes Hydra's quotes gets what is between them."""
    assert compose_config("train", ['data="a,b"']).data == "a,b"


def test_bare_words_fill_the_positional_settings_in_order() -> None:
    """`compare a b` is `compare first=a second=b`, mixed with named ones in any order."""
    config = compose_config("compare", ["runs/a", "evaluation.episodes=9", "runs/b,c"])
    assert (config.first, config.second, config.evaluation.episodes) == ("runs/a", "runs/b,c", 9)


def test_the_last_of_two_values_counts() -> None:
    """As in every shell command, so that a script can append words."""
    assert compose_config("demo", ["seed=1", "seed=2"]).seed == 2


def test_two_choices_of_one_group_give_one_of_them_or_an_error() -> None:
    """Never a mixture of both."""
    config = compose_config("demo", ["task=peg_insertion", "task=adroit_door"])
    assert config == compose_config("demo", ["task=adroit_door"])


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_what_would_be_right(name: str) -> None:
    """One line that names the word, the nearest valid one, and what is permitted."""
    command, words, parts = MISTAKES[name]
    with pytest.raises(ConfigError) as caught:
        compose_config(command, words)
    message = str(caught.value)
    missing = [part for part in parts if part not in message]
    assert not missing, f"{message!r} lacks {missing}"
    assert "\n" not in message


def test_the_valid_names_of_a_mistake_are_all_of_them() -> None:
    """The list after `Valid:` holds every setting of that level, no more and no less."""
    with pytest.raises(ConfigError) as caught:
        compose_config("train", ["cloning.x=1"])
    listed = str(caught.value).partition("Valid: ")[2].split(", ")
    assert set(listed) == {f"cloning.{name}" for name in compose_config("train", []).cloning.__dataclass_fields__}


def test_an_error_leaves_nothing_behind() -> None:
    """After a failed composition the next one is as if it had been the first."""
    before = compose_config("demo", [])
    with pytest.raises(ConfigError):
        compose_config("demo", ["task=nonsense"])
    with pytest.raises(ConfigError):
        compose_config("demo", ["episodes=-1"])
    assert compose_config("demo", []) == before


def test_the_demo_inserts_a_peg_with_a_diffusion_policy_by_default() -> None:
    """`alula demo` alone is the documented demonstration, with the untouched defaults of its parts."""
    config = compose_config("demo", [])
    assert choice("task", config.task) == "peg_insertion"
    assert type(config.policy) is DiffusionPolicyConfig
    assert config.algorithm == ResidualPPOConfig()


def test_the_door_brings_its_own_policy_and_tuned_values() -> None:
    """task=adroit_door alone selects the Gaussian policy and what was tuned for the door."""
    config = compose_config("demo", ["task=adroit_door"])
    assert type(config.policy) is GaussianPolicyConfig
    tuned = yaml.safe_load((PRESETS / "tuned" / "adroit_door_residual_ppo.yaml").read_text())
    assert config.algorithm.discount == tuned["algorithm"]["discount"] != ResidualPPOConfig().discount
    assert config.algorithm.head.scale == tuned["algorithm"]["head"]["scale"] != ResidualPPOConfig().head.scale
    assert config.evaluation.episodes == tuned["evaluation"]["episodes"] != DemoConfig().evaluation.episodes


def test_the_user_overrides_what_a_task_brings() -> None:
    """Presets give way: to another policy, to another value, and to another algorithm with its own defaults."""
    words = ["task=adroit_door", "policy=diffusion", "algorithm.head.scale=0.1", "evaluation.episodes=7"]
    config = compose_config("demo", words)
    assert type(config.policy) is DiffusionPolicyConfig
    assert (config.algorithm.head.scale, config.evaluation.episodes) == (0.1, 7)
    assert config.algorithm.discount == compose_config("demo", ["task=adroit_door"]).algorithm.discount
    assert compose_config("demo", ["task=adroit_door", "algorithm=dppo"]).algorithm == DPPOConfig()


@pytest.mark.parametrize(("task", "algorithm"), list(zip(TASKS, cycle(ALGORITHMS), strict=False)))
def test_every_task_has_a_demo(task: str, algorithm: str) -> None:
    """With any algorithm, here one after the other, and a policy of its own or the usual one."""
    config = compose_config("demo", [f"task={task}", f"algorithm={algorithm}"])
    assert (choice("task", config.task), choice("algorithm", config.algorithm)) == (task, algorithm)


def test_every_policy_preset_belongs_to_a_task() -> None:
    """A preset under a misspelt name would never be used."""
    assert {path.stem for path in (PRESETS / "policy").glob("*.yaml")} <= {f"for_{task}" for task in TASKS}


@pytest.mark.parametrize("name", TUNED)
def test_every_tuned_preset_takes_effect(name: str) -> None:
    """It is named after a task and an algorithm (learning from scratch: with the policy between them).

    Each of its values is found in the configuration of that demo (from scratch: of `alula finetune`).
    """
    commands = {}
    for task in TASKS:
        for algorithm in ALGORITHMS:
            words = [f"task={task}", f"algorithm={algorithm}"]
            commands[f"{task}_{algorithm}"] = ("demo", words)
            commands |= {
                f"{task}_{policy}_{algorithm}": ("finetune", [*words, f"policy={policy}"]) for policy in POLICIES
            }
    config: Any = plain(compose_config(*commands[name]))
    values = yaml.safe_load((PRESETS / "tuned" / f"{name}.yaml").read_text())
    for path in settings(values):
        wanted, found = values, config
        for key in path.split("."):
            wanted, found = wanted[key], found[key]
        assert found == wanted, path


def test_every_command_has_one_preset() -> None:
    """The files at the top are the commands, so none is forgotten and none is left over."""
    assert {path.stem for path in PRESETS.glob("*.yaml")} == set(COMMANDS)


@pytest.mark.parametrize("path", sorted(PRESETS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_presets_hold_plain_values(path: Path) -> None:
    """No class paths, no evaluated code, no blanks to fill: types and defaults live in the dataclasses."""
    text = path.read_text()
    found = [token for token in ("_target_", "${eval", "${oc.", "???", "!!python") if token in text]
    assert not found, f"{path.name} holds {found}"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("demo", []),
        ("demo", ["task=adroit_door", "algorithm.head.scale=0.1", "seed=3", "data=my own, data.npz"]),
        ("demo", ["algorithm=dppo", "policy.field.kind=unet1d", "cloning.learning_rate=1e-05"]),
        ("train", ["data=it's.zarr", "policy=gaussian", "policy.predicts_std=true"]),
        ("evaluate", ["runs/x", "task=peg_insertion", "task.clearance=0.001"]),
    ],
)
def test_a_configuration_can_be_said_in_words(command: str, words: list[str]) -> None:
    """Its own words compose it again, and there are no more than the settings that were changed and the choices."""
    config = compose_config(command, words)
    again = words_of(command, config)
    assert compose_config(command, again) == config
    assert len(again) <= len(words) + len(GROUPS)
