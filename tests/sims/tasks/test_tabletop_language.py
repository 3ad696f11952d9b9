"""TabletopLanguage: what its sentences say, and that success is what they say."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.tasks.tabletop.config import PARAPHRASES, TabletopLanguageConfig
from alula.sims.tasks.tabletop.instructions import (
    LENGTH,
    TEMPLATES,
    Instruction,
    all_instructions,
    decode,
    encode,
)
from alula.sims.tasks.tabletop.tabletop_language import TabletopLanguage
from alula.sims.vector import TaskVectorEnv

SENTENCES = {paraphrases: all_instructions(paraphrases) for paraphrases in PARAPHRASES}


@pytest.fixture(scope="module", params=PARAPHRASES)
def task(request: pytest.FixtureRequest) -> TabletopLanguage:
    """With either half of the wordings."""
    return TabletopLanguage(TabletopLanguageConfig(paraphrases=request.param))


def meaning(instruction: Instruction) -> tuple[str, tuple[str, ...]]:
    """What is asked, without the wording."""
    return instruction.template.name, instruction.things


def test_there_are_many_templates_and_each_has_several_wordings() -> None:
    """At least twelve, with two or more wordings to train on and two to test with, about the same things."""
    assert len(TEMPLATES) >= 12
    for template in TEMPLATES:
        for paraphrases in PARAPHRASES:
            assert len(set(template.wordings(paraphrases))) >= 2
    train, held_out = ({meaning(entry) for entry in SENTENCES[paraphrases]} for paraphrases in PARAPHRASES)
    assert train == held_out


def test_a_sentence_means_one_thing() -> None:
    """No two tasks share a sentence, none is in both halves, and each names its things, a block to be moved first."""
    everything = [entry for entries in SENTENCES.values() for entry in entries]
    assert len({entry.text for entry in everything}) == len(everything)
    for entry in everything:
        named = re.findall(r"\w+ (?:block|pad)", entry.text)
        assert sorted(named) == sorted(entry.things)
        assert entry.things[0].endswith("block")


def test_words_survive_being_bytes() -> None:
    """Every sentence fits the observed field and comes back."""
    for entry in SENTENCES["train"] + SENTENCES["held_out"]:
        observed = encode(entry.text)
        assert (observed.shape, observed.dtype) == ((LENGTH,), np.uint8)
        assert decode(observed) == entry.text


def test_all_kinds_of_instructions_are_given_evenly(task: TabletopLanguage) -> None:
    """Each template in its share of the episodes, and only wordings of this half."""
    count = 1800
    env = TaskVectorEnv(task, count, num_threads=1)
    texts = [decode(row) for row in env.reset(seed=0)[0]["observation.instruction"]]
    known = {entry.text: entry.template.name for entry in SENTENCES[task.config.paraphrases]}
    given = [known[text] for text in texts]
    shares = np.array([given.count(template.name) for template in TEMPLATES]) / count
    mean = 1.0 / len(TEMPLATES)
    assert np.abs(shares - mean).max() < 4.5 * np.sqrt(mean * (1 - mean) / count)
    env.close()


Where = dict[str, np.ndarray]
BLOCK = 0.03
"""Edge length [m]."""


def on_table(place: np.ndarray) -> bool:
    """Whether a block with its centre there lies on the table."""
    return bool(abs(place[2] - BLOCK / 2) < 0.006)


def beside(axis: int, sign: int) -> Callable[[Where, Where, list[str]], bool]:
    """Whether the first thing lies on that side of the second: further than the blocks are wide, and not far off."""

    def check(before: Where, after: Where, things: list[str]) -> bool:
        away = (after[things[0]] - after[things[1]])[:2] * sign
        return BLOCK < away[axis] < 0.11 and abs(away[1 - axis]) < 0.03 and on_table(after[things[0]])

    return check


def shifted(axis: int, sign: int) -> Callable[[Where, Where, list[str]], bool]:
    """Whether the thing has moved that way, mostly."""

    def check(before: Where, after: Where, things: list[str]) -> bool:
        away = (after[things[0]] - before[things[0]])[:2] * sign
        return away[axis] > 0.03 and abs(away[1 - axis]) < 0.045 and on_table(after[things[0]])

    return check


def at(x: int, y: int) -> Callable[[Where, Where, list[str]], bool]:
    """Whether the thing lies in that part of the workspace, of 3 times 3."""

    def check(before: Where, after: Where, things: list[str]) -> bool:
        share = (after[things[0]][:2] - [0.5, 0.0]) / 0.12
        return bool((np.abs(share - [x, y]) < 0.6).all()) and on_table(after[things[0]])

    return check


def upon(before: Where, after: Where, things: list[str]) -> bool:
    """Whether the first thing lies on the second, which has kept its place."""
    top = BLOCK if things[1].endswith("block") else 0.0
    away = after[things[0]] - after[things[1]]
    height = after[things[0]][2] - BLOCK / 2 - top
    return bool(np.abs(away[:2]).max() < 0.03) and abs(height) < 0.006


def above(before: Where, after: Where, things: list[str]) -> bool:
    """Whether the first thing is in the air; if there is a second one, over it."""
    under = after[things[-1]] if len(things) == 2 else before[things[0]]
    away = after[things[0]] - under
    return bool(np.abs(away[:2]).max() < (0.03 if len(things) == 2 else 0.08)) and away[2] > 0.04


def between(before: Where, after: Where, things: list[str]) -> bool:
    """Whether the angle at the first thing between the other two is nearly straight."""
    one, two = (after[thing][:2] - after[things[0]][:2] for thing in things[1:])
    return bool(one @ two < -0.7 * np.linalg.norm(one) * np.linalg.norm(two)) and on_table(after[things[0]])


MEANS = {
    "lift": above,
    "hold_over": above,
    "put_on": upon,
    "stack": upon,
    "left_of": beside(1, 1),
    "right_of": beside(1, -1),
    "in_front_of": beside(0, -1),
    "behind": beside(0, 1),
    "between": between,
    "to_center": at(0, 0),
    "to_far_left": at(1, 1),
    "to_far_right": at(1, -1),
    "to_near_left": at(-1, 1),
    "to_near_right": at(-1, -1),
    "push_left": shifted(1, 1),
    "push_right": shifted(1, -1),
    "push_away": shifted(0, 1),
    "pull_near": shifted(0, -1),
}
"""What each template means, told once more by where things are."""


def test_success_is_what_the_words_say(task: TabletopLanguage) -> None:
    """When the expert's episodes end, the scene is as the sentence, read from its bytes, asks; before it was not."""
    count = 45
    env = TaskVectorEnv(task, count, AutoresetMode.DISABLED, num_threads=1)
    texts = [decode(row) for row in env.reset(seed=0)[0]["observation.instruction"]]
    known = {entry.text: entry for entry in SENTENCES[task.config.paraphrases]}
    bodies, state = task.things | task.fixtures, env.engine.state

    def scene(row: int) -> Where:
        return {name.replace("_", " "): body.position(state)[row].copy() for name, body in bodies.items()}

    before = [scene(row) for row in range(count)]
    expert, ended = task.expert(0.0, 0), np.zeros(count, dtype=bool)
    checked = set()
    for _ in range(task.max_episode_steps):
        success = env.step(expert.act(state))[4]["success"]
        for row in np.flatnonzero(success & ~ended):
            asked = known[texts[row]]
            holds, things = MEANS[asked.template.name], list(asked.things)
            assert holds(before[row], scene(row), things), asked.text
            assert not holds(before[row], before[row], things), asked.text
            checked.add(asked.template.name)
        ended |= success
        if ended.all():
            break
    assert ended.mean() >= 0.95
    assert len(checked) > 0.8 * len(TEMPLATES)
    env.close()


def test_one_template_can_be_chosen() -> None:
    """Then no other is given."""
    task = TabletopLanguage(TabletopLanguageConfig(template="stack"))
    assert {instruction.template.name for instruction in task.instructions} == {"stack"}
    with pytest.raises(ConfigError, match="stack"):
        TabletopLanguageConfig(template="stak")
    with pytest.raises(ConfigError, match="held_out"):
        TabletopLanguageConfig(paraphrases="heldout")


def test_a_workspace_too_small_is_refused() -> None:
    """The SO-101 reaches a square of 12 cm."""
    with pytest.raises(ConfigError, match=r"robot=so101 is 0\.12 m wide.*needs 0\.2 m"):
        TabletopLanguage(TabletopLanguageConfig(robot="so101"))
