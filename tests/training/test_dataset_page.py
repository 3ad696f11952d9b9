"""Pages of synthetic datasets: everything appears, nothing is required, nothing is loaded or let in from elsewhere."""

import base64
import re
from collections import Counter
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.conversion import Conversion, source_format
from alula.datasets.formats.native import Native
from alula.datasets.store import EpisodeStore
from alula.datasets.summary import summarize
from alula.training.contact_sheets import MOMENTS, WIDTH, film_strip
from alula.training.dataset_page import (
    MOST_ELEMENTS,
    MOST_ROWS,
    chosen_elements,
    facts,
    listed,
    oddities,
    recorded_seconds,
    write_dataset_page,
)
from alula.training.dataset_plots import MOST_POINTS, Element, Line, thinned
from alula.training.report import NBSP

VOID = {"meta", "link", "img"}
HOSTILE = "<script>alert('&amp; \"quoted\"')</script> $x_1$"
STATE = FieldSpec("observation.state", (3,), units=("m", "rad", "1"), element_names=("x", "<b>turn</b>", "still"))
SENSOR = FieldSpec("observation.sensor", (), "float64", ("V",), allow_nan=True)
CAMERA = FieldSpec("observation.images.top", (24, 32, 3), "uint8")
ACTION = FieldSpec("action", (2,), units=("m/s",), low=(-1.0,), high=(1.0,), rate=10.0)
TIMESTAMP = FieldSpec("timestamp", (), "int64", ("ns",))


class Page(HTMLParser):
    """Reads a page and complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.tags, self.words = text, [], [], ""
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words = " ".join(f"{self.words} {data}".split()) if "style" not in self.open else self.words

    def all(self, name, attribute):
        return [attributes[attribute] for tag, attributes in self.tags if tag == name and attribute in attributes]

    @property
    def sections(self):
        return self.all("section", "id")

    @property
    def plots(self):
        return [label for label in self.all("svg", "aria-label") if label]


@pytest.fixture
def make_store(tmp_path):
    """`make_store(lengths, fields)`: episodes with an instruction each; the action and the third state stay put."""

    def make(lengths, observation=(STATE, SENSOR, CAMERA), action=(ACTION,), extra=(), metadata=None):
        spaces = [SpaceSpec(tuple(fields)) for fields in (observation, action, extra)]
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        store = EpisodeStore.create(path, *spaces[:2], metadata or {}, extra=spaces[2])
        for index, length in enumerate(lengths):
            store.append(make_episode(store, index, length))
        return store

    return make


def make_episode(store, index, length):
    rng = np.random.default_rng(index)
    steps = {}
    for field in store.fields.values():
        values = rng.uniform(-1, 1, (length, *field.shape))
        if field.name == "timestamp":
            values = index * 10**12 + np.arange(length) * 50_000_000
        elif field.dtype == "uint8":
            values = rng.integers(0, 256, (length, *field.shape))
        elif field.dtype == "bool":
            values = np.zeros((length, *field.shape), bool)
            values[-1:] = index % 2
        steps[field.name] = values.astype(field.dtype)
    if "observation.state" in steps:
        steps["observation.state"][..., -1] = 0.5
    if "observation.sensor" in steps:
        steps["observation.sensor"][::2] = np.nan
    return Episode(steps, {"instruction": f"{HOSTILE} number {index}"})


@pytest.fixture
def page_of(tmp_path):
    """The page of a dataset."""

    def read(store):
        path = tmp_path / "page.html"
        write_dataset_page(store, summarize(store), path)
        return Page(path.read_text(encoding="utf-8"))

    return read


def test_the_page_shows_everything(make_store, page_of):
    page = page_of(make_store([12, 30, 1, 0, 7]))
    wanted = ["facts", "oddities", "pictures", "episodes", "time", "distributions", "fields", "metadata"]
    assert page.sections == wanted[:-1]
    assert page_of(make_store([3], metadata={"licence": "CC0"})).sections[-1] == "metadata"
    assert len(page.plots) == 2 + 2 + 6  # length and return; each action over time; each element's distribution
    for word in ("m/s", "rad", "50", "0 to 30, median 7"):
        assert word in page.words, word


def test_nothing_is_loaded_from_elsewhere(make_store, page_of):
    page = page_of(make_store([12, 5]))
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "video"} == set()
    (policy,) = (attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")
    references = [*page.all("img", "src"), *page.all("link", "href"), *page.all("use", "href")]
    assert {reference.split(":")[0] if not reference.startswith("#") else "#" for reference in references} <= {
        "data",
        "#",
    }
    assert "http" not in re.sub(r"http://www\.w3\.org/\S*", "", page.text.replace("http-equiv", ""))
    assert not re.search(r"url\((?!#)|@import", page.text)


def test_hostile_words_stay_words(make_store, page_of):
    metadata = {"task": HOSTILE, "provenance": HOSTILE}
    page = page_of(make_store([4, 4], metadata=metadata))
    assert "<script" not in page.text
    assert "<b>" not in page.text
    assert HOSTILE in page.words
    assert "state <b>turn</b> [rad]" in page.words


def test_every_strip_says_what_it_shows(make_store, page_of):
    """Episodes without steps have no pictures; of many episodes a few are shown, first and last among them."""
    page = page_of(make_store([0, 3, 9, 0, 1]))
    for index, length in ((1, 3), (2, 9), (4, 1)):
        outcome = "success" if index % 2 else "no success"
        assert f"Episode {index}, {length} steps, {outcome}: {HOSTILE} number {index}" in page.words.replace(" :", ":")
    assert "Episode 0," not in page.words
    assert len(page.all("img", "src")) == 3 + MOMENTS + 1
    many = page_of(make_store([2] * 50))
    shown = [int(number) for number in re.findall(r"Episode (\d+), ", many.words)]
    assert len(shown) == MOST_ROWS
    assert (shown[0], shown[-1]) == (0, 49)
    assert max(np.diff(shown)) - min(np.diff(shown)) <= 1


def test_strips_are_the_recorded_pictures_in_order(make_store):
    """Frames run from the first step to the last and are the store's pictures, but for JPEG's losses."""
    wide = FieldSpec("observation.images.wide", (400, 640, 1), "uint8")
    store = make_store([30], observation=(wide,), action=())
    smooth = np.arange(30)[:, None, None, None] * 8 + np.zeros((1, 400, 640, 1))
    steps = store.episode(0).steps | {"observation.images.wide": smooth.astype(np.uint8)}
    store.append(Episode(steps))
    frames = film_strip(store, "observation.images.wide", 1)
    assert [frame.step for frame in frames] == [0, 4, 8, 12, 17, 21, 25, 29]
    for frame in frames:
        kind, content = frame.source.split(",")
        assert kind == "data:image/jpeg;base64"
        image = Image.open(BytesIO(base64.b64decode(content)))
        assert image.size == (WIDTH, 100)
        assert abs(np.asarray(image).astype(float) - 8 * frame.step).max() <= 2


def test_a_camera_that_saw_nothing_is_said_once(make_store, page_of):
    store = make_store([3, 3])
    dark = make_store([], observation=(CAMERA,))
    for episode in map(store.episode, range(2)):
        steps = {name: values for name, values in episode.steps.items() if name in dark.fields}
        dark.append(Episode(steps | {CAMERA.name: np.zeros((3, *CAMERA.shape), np.uint8)}))
    page = page_of(dark)
    assert "Every picture is the same single colour." in page.words
    assert "Never changes: observation.images.top" in page.words
    assert not page.all("img", "src")


POOR = {
    "no action": ((STATE,), (), ()),
    "nothing but a sensor": ((SENSOR,), (), ()),
    "nothing seen": ((), (ACTION,), ()),
    "neither": ((), (), ()),
    "a clock": ((STATE,), (ACTION,), (TIMESTAMP,)),
    "odd types": ((FieldSpec("observation.flags", (2,), "bool"), FieldSpec("observation.n", (), "int8")), (), ()),
    "two axes": ((FieldSpec("observation.grid", (2, 3), "float16"),), (), ()),
    "named columns": ((FieldSpec("observation.points", (4, 2), element_names=("x", "y")),), (), ()),
    "three axes": ((FieldSpec("observation.volume", (2, 3, 4)),), (), ()),
    "a tiny picture": ((FieldSpec("observation.touch", (2, 2, 3), "uint8"),), (), ()),
    "an embedding": ((FieldSpec("observation.embedding", (300,)),), (ACTION,), ()),
}


@pytest.mark.parametrize("fields", POOR.values(), ids=POOR)
@pytest.mark.parametrize("lengths", [[1], [0, 5, 2]], ids=["one step", "several"])
def test_poor_datasets_have_a_page_too(make_store, page_of, fields, lengths):
    store = make_store(lengths, *fields)
    page = page_of(store)
    elements, left_out = chosen_elements(store)
    assert sum(label.startswith("Distribution of") for label in page.plots) == len(elements)
    assert all(words in page.words for words in left_out)
    assert ("clocks" in page.sections) == ("timestamp" in store.extra and max(lengths) > 1)


def test_a_sensor_that_was_silent_has_an_empty_plot(make_store, page_of):
    store = make_store([], observation=(SENSOR,), action=())
    template = make_store([6], observation=(SENSOR,), action=()).episode(0)
    store.append(Episode(template.steps | {SENSOR.name: np.full(6, np.nan)}))
    assert "no values" in page_of(store).words


def test_missing_values_and_constants_are_said(make_store, page_of):
    words = page_of(make_store([10])).words
    assert "50 % missing" in words
    assert "always 0.5" in words


def test_elements_are_shared_out_between_actions_and_observations(make_store):
    """Each side has half of the plots, and what the other leaves; the rest is named and nothing is lost."""
    for num_actions, num_observed, wanted in ((40, 60, (16, 16)), (4, 60, (4, 28)), (28, 10, (22, 10)), (3, 5, (3, 5))):
        fields = (FieldSpec("observation.state", (num_observed,)),), (FieldSpec("action", (num_actions,)),)
        store = make_store([1], *fields)
        chosen, left_out = chosen_elements(store)
        found = Counter(element.field.name for element in chosen)
        assert (found["action"], found["observation.state"]) == wanted
        assert len(chosen) <= MOST_ELEMENTS
        missing = sum(int(re.search(r"\((\d+) of", words)[1]) for words in left_out)
        assert len(chosen) + missing == num_actions + num_observed


def test_time_is_the_clocks_or_else_the_rates(make_store):
    """By a clock an episode lasts from its first to its last step; by a rate every step lasts as long."""
    assert recorded_seconds(make_store([11, 0, 21], extra=(TIMESTAMP,))) == pytest.approx(30 * 0.05)
    assert recorded_seconds(make_store([11, 0, 21])) == pytest.approx(32 / 10)
    assert recorded_seconds(make_store([11], action=(), metadata={"rate": 4})) == pytest.approx(11 / 4)
    assert recorded_seconds(make_store([11], action=())) is None


def test_facts_leave_out_what_nobody_recorded(make_store):
    store = make_store([3, 5], metadata={"success_recorded": False})
    found = facts(store, summarize(store))
    assert "success" not in found
    assert found["steps per episode"] == "3 to 5, median 4"
    assert found["different instructions"] == "2"
    store = make_store([3, 5, 2, 2])
    assert facts(store, summarize(store))["success"] == f"50{NBSP}%"


def test_oddities_are_said_in_words(make_store):
    store = make_store([4, 0, 6])
    store.append(store.episode(2))
    assert oddities(summarize(store)) == [
        "Never changes: observation.state still",
        "Identical episodes: 2, 3",
        "Episodes without steps: 1",
    ]
    quiet = make_store([4, 6], observation=(SENSOR,))
    assert oddities(summarize(quiet)) == []
    saturated = make_store([4])
    steps = saturated.episode(0).steps
    saturated.append(Episode(steps | {"action": np.full_like(steps["action"], 1.0)}))
    assert f"50{NBSP}% of all action values are at a limit of the specification or beyond" in oddities(
        summarize(saturated)
    )


def test_long_lists_are_cut():
    assert listed([0.123456, 2.0]) == "0.1235, 2"
    assert listed("word") == "word"
    assert listed(list(range(1008))) == "0, 1, 2, 3, 4, 5, 6, 7 and 1,000 more"


def test_long_lines_keep_their_peaks():
    values = np.zeros(10_000)
    values[[1234, 7777]] = 5.0, -3.0
    line = thinned(Line(np.arange(10_000.0), values))
    assert len(line.x) <= MOST_POINTS
    assert {1234.0, 7777.0} <= set(line.x)
    assert (np.diff(line.x) > 0).all()
    assert np.isnan(thinned(Line(np.arange(10_000.0), np.full(10_000, np.nan))).y).all()


def test_elements_are_named_with_their_unit():
    assert Element(STATE, 0).title == "state x [m]"
    assert Element(STATE, 2).title == "state still"
    assert Element(SENSOR, 0).title == "sensor [V]"
    assert Element(ACTION, 1).title == "action 1 [m/s]"
    assert Element(ACTION, 1).limits == [-1.0, 1.0]
    grid = FieldSpec("observation.grid", (2, 3), units=("m", "s", "kg"))
    assert Element(grid, 4).title == "grid 4 [s]"
    points = FieldSpec("observation.points", (4, 2), element_names=("x", "y"))
    assert Element(points, 5).title == "points 5 y"
    assert Element(grid, 4).of(np.arange(12).reshape(2, 2, 3)).tolist() == [4.0, 10.0]


def test_the_same_dataset_gives_the_same_page(make_store, tmp_path):
    store = make_store([5, 6])
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    for path in (first, second):
        write_dataset_page(store, summarize(store), path)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [("bridge_rlds/1.0.0", "put carrot on plate"), ("px4_flight_small.ulg", "vehicle_attitude")],
    ids=["pictures and instructions", "many streams"],
)
def test_real_recordings_have_pages(page_of, tmp_path, name, words):
    source = Path(__file__).parents[2] / "../shared/data" / name
    if not source.exists():
        pytest.skip("the recording is not on this machine")
    with source_format(source, None).open(source) as reader:
        Conversion(source, tmp_path / "copy.zarr", reader, Native()).run()
    assert words in page_of(EpisodeStore.open(tmp_path / "copy.zarr")).words
