"""`alula inspect`: what it prints, and which files it writes and leaves alone."""

import sys
from pathlib import Path
from typing import Any

import pytest


def test_it_prints_words_and_writes_a_page(alula: Any, workplace: Path) -> None:
    done = alula("inspect", "demonstrations.zarr")
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == "demonstrations-inspect.html"
    for words in ("episodes", "steps per episode", "success", "size on disk", "observation.state  float32 [20], "):
        assert words in done.out, words
    assert not any(sign in done.out for sign in ("{'", "None", "[]", "dtype"))
    page = (workplace / "demonstrations-inspect.html").read_text(encoding="utf-8")
    assert "<title>demonstrations.zarr</title>" in page


def test_the_page_goes_where_it_is_wanted(alula: Any, workplace: Path) -> None:
    """Folders are made, a page that is there is replaced, and `null` leaves everything as it was."""
    before = sorted(workplace.rglob("*.html"))
    assert alula("inspect", "demonstrations.zarr", "page=null").status == 0
    assert sorted(workplace.rglob("*.html")) == before
    for _ in range(2):
        assert alula("inspect", "demonstrations.zarr", "page=new/of-NAME.html").status == 0
    assert (workplace / "new" / "of-demonstrations.html").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["page=cloned/config.yaml"], ["page=cloned/config.yaml", "must end with .html"]),
        (["rerun=demonstrations.zarr"], ["rerun=demonstrations.zarr", "must end with .rrd"]),
        (["page=cloned/config.yaml/x.html"], ["cannot write", "config.yaml/x.html", "may write"]),
    ],
    ids=["a page over something else", "a recording over the data", "below a file"],
)
def test_nothing_else_is_replaced(words: list[str], parts: list[str], alula: Any, workplace: Path) -> None:
    files = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file() and path.suffix != ".npz"}
    error = alula("inspect", "demonstrations.zarr", *words).error
    assert all(part in error for part in parts), error
    assert files == {path: path.read_bytes() for path in files}


def test_without_rerun_nothing_is_begun(alula: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    done = alula("inspect", "demonstrations.zarr", "rerun=out.rrd")
    assert "alula[rerun]" in done.error
    assert not done.out
    assert not list(workplace.glob("*-inspect.html"))


def test_another_format_is_named_and_measured_as_it_is(alula: Any, workplace: Path) -> None:
    """The copy that is read leaves no trace: neither its name nor its size nor itself."""
    assert alula("convert", "demonstrations.zarr", "v1.hdf5").status == 0
    done = alula("inspect", "v1.hdf5", "--json")
    assert done.status == 0, done.err
    found = {result["name"]: result["value"] for result in done.report["results"]}
    assert found["size_on_disk_bytes"] == (workplace / "v1.hdf5").stat().st_size
    assert (workplace / "v1-inspect.html").exists()
    assert "copy" not in done.out
    assert "v1.hdf5" in (workplace / "v1-inspect.html").read_text(encoding="utf-8")


def test_a_version_is_no_suffix(alula: Any, workplace: Path) -> None:
    """RLDS datasets live in folders such as peg/1.0.0."""
    assert alula("convert", "demonstrations.zarr", "peg/1.0.0", "format=rlds").status == 0
    assert alula("inspect", "peg/1.0.0").status == 0
    assert "<title>peg/1.0.0</title>" in (workplace / "peg-1.0.0-inspect.html").read_text(encoding="utf-8")
