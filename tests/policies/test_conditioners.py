"""State, pictures and instructions: what each becomes, and which fields go where."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from alula.core.errors import ConfigError
from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Windows
from alula.policies.conditioners import (
    FINE_CLAMP,
    ImageConditioner,
    LanguageConditioner,
    StateConditioner,
    kind_of,
    make_conditioner,
)
from alula.policies.conditioners.images import ImageEncoder, mean_positions, shifted
from alula.policies.config import FieldConfig, PolicyConfig
from alula.policies.registry import POLICIES, make_policy

SPACE = SpaceSpec(
    (
        FieldSpec("coarse", (2,)),
        FieldSpec("fine", (3,), resolution=(0.0, 0.001, 0.5)),
        FieldSpec("alike", (2,), resolution=(0.1,)),
    )
)


def fitted() -> StateConditioner:
    """Ranges: coarse -2..6, fine -1..1, alike 0..4."""
    conditioner = StateConditioner(SPACE)
    ranges = {"coarse": (-2.0, 6.0, 2), "fine": (-1.0, 1.0, 3), "alike": (0.0, 4.0, 2)}
    conditioner.normalizer.fit(
        {name: FieldStatistics.of(np.tile([[low], [high]], size)) for name, (low, high, size) in ranges.items()}
    )
    return conditioner


def test_features_by_hand() -> None:
    """All fields scaled in order, then tanh(value / resolution) of the elements that have one."""
    conditioner = fitted()
    observation = {
        "coarse": torch.tensor([[2.0, 6.0]]),
        "fine": torch.tensor([[0.5, 0.002, -0.25]]),
        "alike": torch.tensor([[1.0, 0.05]]),
    }
    expected = [0.0, 1.0, 0.5, 0.002, -0.25, -0.5, -0.975]
    expected += [math.tanh(2.0), math.tanh(-0.5), math.tanh(10.0), math.tanh(0.5)]
    assert conditioner.size == len(expected)
    assert conditioner(observation)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_outliers_are_clamped_but_stay_visible_on_the_fine_scale() -> None:
    """Far outside the recorded range the coarse feature stops; inside the resolution the fine one does not."""
    conditioner = fitted()
    observation = {"coarse": torch.full((1, 2), 1e6), "fine": torch.full((1, 3), -1e6), "alike": torch.zeros(1, 2)}
    features = conditioner(observation)[0]
    assert features[:5].tolist() == [FINE_CLAMP] * 2 + [-FINE_CLAMP] * 3
    assert features[7:9].tolist() == [-1.0, -1.0]


def test_double_precision_enters_as_single() -> None:
    """Some tasks observe in double precision; networks, and hence features, are of single precision."""
    conditioner = fitted()
    single = {
        "coarse": torch.tensor([[2.0, 6.0]]),
        "fine": torch.tensor([[0.5, 0.002, -0.25]]),
        "alike": torch.tensor([[1.0, 0.05]]),
    }
    features = conditioner({name: value.double() for name, value in single.items()})
    assert features.dtype == torch.float32
    assert torch.equal(features, conditioner(single))


def test_bytes_are_numbers() -> None:
    """A field of bytes, such as an instruction, gives the features of the same numbers."""
    conditioner = StateConditioner(SpaceSpec((FieldSpec("words", (3,), dtype="uint8"),)))
    conditioner.normalizer.fit({"words": FieldStatistics.of(np.array([[0.0, 0.0, 0.0], [200.0, 100.0, 255.0]]))})
    features = conditioner({"words": torch.tensor([[50, 100, 255]], dtype=torch.uint8)})
    assert features[0].tolist() == pytest.approx([-0.5, 1.0, 1.0])


def test_the_fine_scales_are_not_weights() -> None:
    """They come from the space, so that a checkpoint holds the fitted scaling alone."""
    assert all(name.startswith("normalizer.") for name in fitted().state_dict())
    assert not list(fitted().parameters())


def test_fields_of_any_shape_are_flattened() -> None:
    """A scalar and a matrix enter like vectors; recordings of others have both."""
    space = SpaceSpec((FieldSpec("scalar", ()), FieldSpec("matrix", (2, 2)), FieldSpec("vector", (2,))))
    conditioner = StateConditioner(space)
    ranges = {name: np.stack([-np.ones(field.shape), np.ones(field.shape)]) for name, field in space.items()}
    conditioner.normalizer.fit({name: FieldStatistics.of(values) for name, values in ranges.items()})
    seen = {"scalar": torch.tensor([0.5]), "matrix": torch.eye(2)[None], "vector": torch.tensor([[0.1, 0.2]])}
    assert conditioner(seen)[0].tolist() == pytest.approx([0.5, 1, 0, 0, 1, 0.1, 0.2])
    assert conditioner.size == 7


TOP = FieldSpec("observation.images.top", (32, 40, 3), "uint8")
WRIST = FieldSpec("observation.images.wrist", (16, 16, 3), "uint8")
WORDS = FieldSpec("observation.language_embedding", (24,))
JOINTS = FieldSpec("observation.state", (3,), resolution=(0.0, 0.0, 0.01))
EVERYTHING = SpaceSpec((TOP, JOINTS, WORDS, WRIST))
ACTION = SpaceSpec((FieldSpec("action", (2,)),))
SIZES = {"image_features": 6, "language_features": 5, "image_size": 24}


def look(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random pictures, words and joints."""
    generator = Generator().manual_seed(seed)
    pictures = {
        field.name: torch.randint(0, 256, (batch, *field.shape), dtype=torch.uint8, generator=generator)
        for field in (TOP, WRIST)
    }
    numbers = {field.name: torch.randn(batch, *field.shape, generator=generator) for field in (JOINTS, WORDS)}
    return {name: (pictures | numbers)[name] for name in EVERYTHING}


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (TOP, "image"),
        (WORDS, "language"),
        (JOINTS, "state"),
        (FieldSpec("observation.state", (9,), "uint8"), "state"),
        (FieldSpec("observation.language_embedding_norm", (1,)), "state"),
    ],
)
def test_the_name_tells_the_kind(field: FieldSpec, kind: str) -> None:
    """Cameras and instructions have their own names; whatever else there is counts as state."""
    assert kind_of(field) == kind


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8), "uint8"), ((8, 8, 1), "uint8"), ((8, 8, 3), "float32")])
def test_other_pictures_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    """Depth under a camera's name is no colour picture; the message says how to go without."""
    with pytest.raises(ConfigError, match=r"observation\.images\.depth.*uint8 \(height, width, 3\).*fields="):
        kind_of(FieldSpec("observation.images.depth", shape, dtype))


def test_state_alone_has_the_same_conditioner_as_ever() -> None:
    """No weights and no further names in a checkpoint, whatever the sizes for pictures are."""
    conditioner = make_conditioner(SpaceSpec((JOINTS,)), PolicyConfig(**SIZES))
    assert type(conditioner) is StateConditioner
    assert set(conditioner.state_dict()) == {"normalizer.center_0", "normalizer.scale_0"}


def test_every_kind_enters_beside_the_state() -> None:
    """The state's features come first and are those that it has alone; each other kind changes its own only."""
    conditioner = make_conditioner(EVERYTHING, PolicyConfig(**SIZES)).eval()
    assert conditioner.size == 4 + 2 * 6 + 5
    assert conditioner.names == ("observation.state",)
    seen, other = look(3), look(3, seed=1)
    features = conditioner(seen)
    assert features.shape == (3, conditioner.size)
    assert torch.equal(features[:, :4], make_conditioner(SpaceSpec((JOINTS,)), PolicyConfig())(seen))
    places = {TOP: slice(4, 10), WRIST: slice(10, 16), WORDS: slice(16, 21), JOINTS: slice(0, 4)}
    for field, place in places.items():
        changed = (conditioner(seen | {field.name: other[field.name]}) != features).any(dim=0)
        assert changed[place].any()
        assert not changed[: place.start].any()
        assert not changed[place.stop :].any()


def test_pictures_alone_suffice() -> None:
    """A policy may see nothing but a camera."""
    conditioner = make_conditioner(SpaceSpec((WRIST,)), PolicyConfig(**SIZES))
    assert conditioner(look(2)).shape == (2, 6)
    assert conditioner.names == ()


def test_features_do_not_depend_on_the_batch() -> None:
    """Each observation is seen alone: a robot in use has a batch of one."""
    conditioner = make_conditioner(EVERYTHING, PolicyConfig(**SIZES)).eval()
    seen = look(5)
    alone = torch.cat([conditioner({name: value[i : i + 1] for name, value in seen.items()}) for i in range(5)])
    torch.testing.assert_close(conditioner(seen), alone, rtol=1e-4, atol=1e-5)


def test_mean_positions_by_hand() -> None:
    """One bright pixel is where it is, row then column from -1 to 1; an even map is in the middle."""
    maps = torch.zeros(1, 3, 3, 5)
    maps[0, 0, 0, 4] = 100.0
    maps[0, 1, 2, 1] = 100.0
    rows, columns = [-1.0, 1.0, 0.0], [1.0, -0.5, 0.0]
    assert mean_positions(maps)[0].tolist() == pytest.approx(rows + columns, abs=1e-6)
    assert mean_positions(torch.zeros(1, 1, 1, 1)).tolist() == [[0.0, 0.0]]


def test_moving_a_thing_moves_the_features() -> None:
    """Position is what the encoder gives: it tells pictures apart that differ in nothing else."""
    torch.manual_seed(0)
    encoder = ImageEncoder((32, 32), 96, 8)
    pictures = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    pictures[0, 4:8, 4:8] = 255
    pictures[1, 24:28, 24:28] = 255
    features = encoder(pictures)
    assert (features[0] - features[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("size", "seen"), [(96, (60, 80)), (40, (30, 40)), (80, (60, 80))])
def test_large_pictures_are_shrunk(size: int, seen: tuple[int, int]) -> None:
    """To that many pixels on the longer side and in proportion; small ones stay as they are."""
    encoder = ImageEncoder((60, 80), size, 8)
    inputs: list[torch.Size] = []
    encoder.layers.register_forward_pre_hook(lambda module, args: inputs.append(args[0].shape))
    encoder(torch.zeros(1, 60, 80, 3, dtype=torch.uint8))
    assert inputs == [torch.Size((1, 3, *seen))]


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 40), width=st.integers(1, 40), batch=st.integers(1, 4), seed=st.integers(0, 1000))
def test_a_shift_moves_whole_pixels_and_repeats_the_edge(height: int, width: int, batch: int, seed: int) -> None:
    """There are offsets within the limit for which every pixel is the one at its clamped source."""
    generator = Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)
    moved = shifted(pictures, generator)
    most = max(height, width) // 16
    rows, columns = np.arange(height), np.arange(width)
    for before, after in zip(pictures.numpy(), moved.numpy(), strict=True):
        sources = [
            before[(rows + down).clip(0, height - 1)][:, (columns + right).clip(0, width - 1)]
            for down in range(-most, most + 1)
            for right in range(-most, most + 1)
        ]
        assert any(np.array_equal(after, source) for source in sources)


def test_every_picture_is_shifted_by_itself_and_reproducibly() -> None:
    """Equal pictures of one batch differ afterwards, and equal generators shift alike; nothing but pictures changes."""
    seen = look(1)
    seen = {name: value.expand(40, *value.shape[1:]) for name, value in seen.items()}
    conditioner = make_conditioner(EVERYTHING, PolicyConfig(**SIZES))
    first, again = (conditioner.augment(seen, Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in seen)
    assert list(first) == list(seen)
    for field in (JOINTS, WORDS):
        assert torch.equal(first[field.name], seen[field.name])
    for field, distinct in ((TOP, 25), (WRIST, 9)):
        assert 1 < len(first[field.name].unique(dim=0)) <= distinct
        assert first[field.name].dtype == torch.uint8


def test_an_instruction_counts_by_its_direction() -> None:
    """Scale and offset of an embedding say nothing; another sentence gives other features."""
    torch.manual_seed(0)
    conditioner = LanguageConditioner(SpaceSpec((WORDS,)), 5)
    embedding = torch.randn(1, 24)
    features = conditioner({WORDS.name: embedding})
    torch.testing.assert_close(conditioner({WORDS.name: 7 * embedding + 3}), features, rtol=1e-3, atol=1e-3)
    assert (conditioner({WORDS.name: torch.randn(1, 24)}) - features).abs().max() > 0.1


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_learns_from_pictures_and_words(name: str) -> None:
    """All weights get a gradient, and a chunk comes out."""
    torch.manual_seed(0)
    config = POLICIES[name](horizon=4, execute_steps=2, field=FieldConfig(width=16, blocks=1), **SIZES)
    policy = make_policy(config, EVERYTHING, ACTION)
    ranges = {"observation.state": np.array([[-1.0] * 3, [1.0] * 3]), "action": np.array([[-1.0] * 2, [1.0] * 2])}
    policy.fit_normalizers({name: FieldStatistics.of(values) for name, values in ranges.items()})
    seen = look(8)
    windows = Windows(
        {name: value.numpy() for name, value in seen.items()},
        np.random.default_rng(0).uniform(-1, 1, (8, 4, 2)).astype(np.float32),
        np.ones((8, 4), dtype=bool),
    )
    policy.loss(windows, Generator().manual_seed(0)).backward()
    for part, parameter in policy.conditioner.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.abs().sum() > 0, part
    chunk, _ = policy.sample(seen, Generator().manual_seed(0), stochastic=False)
    assert chunk.shape == (8, 4, 2)


@pytest.mark.parametrize("name", ["image_features", "image_size", "language_features"])
def test_sizes_are_positive(name: str) -> None:
    """The setting is named."""
    with pytest.raises(ConfigError, match=f"policy.{name} is 0"):
        PolicyConfig(**{name: 0})


def test_cameras_keep_weights_of_their_own() -> None:
    """Two cameras with the same picture see it differently."""
    torch.manual_seed(0)
    space = SpaceSpec((WRIST, FieldSpec("observation.images.other", WRIST.shape, "uint8")))
    picture = look(1)[WRIST.name]
    features = ImageConditioner(space, 96, 6)({name: picture for name in space})
    assert not torch.equal(features[:, :6], features[:, 6:])
