"""The folders at the root are the package `alula`, complete, and in nobody's way."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS: dict[str, Any] = PYPROJECT["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]


PEERS = ROOT / "commands" / "benches" / "peer.py"
"""Imports simulators that are measured beside ours, by interpreters of their own."""


def required(requirements: list[str]) -> set[str]:
    """Normalised names of distributions."""
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def test_every_package_folder_is_listed() -> None:
    """Any folder that holds a Python file is a package, so that forgetting its `__init__.py` shows as well."""
    on_disk = set(FOLDERS)
    for package, folder in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.parent.relative_to(ROOT / folder).parts
            on_disk.add(".".join((package, *parts)))
    listed = set(SETUPTOOLS["packages"])
    assert on_disk == listed, (
        f"pyproject.toml, [tool.setuptools] packages: add {sorted(on_disk - listed)}, remove {sorted(listed - on_disk)}"
    )


def test_every_package_but_datasets_has_an_init() -> None:
    missing = []
    for package in set(SETUPTOOLS["packages"]) - {"alula.datasets"}:
        room = ".".join(package.split(".")[:2])
        folder = ROOT.joinpath(FOLDERS[room], *package.split(".")[2:])
        if not (folder / "__init__.py").exists():
            missing.append(folder.relative_to(ROOT).as_posix())
    assert not missing, f"no __init__.py in {sorted(missing)}"


def test_datasets_folder_stays_a_namespace() -> None:
    """With an `__init__.py`, `import datasets` from the root would find ours and break Hugging Face's users."""
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_namespace_and_root_stay_free() -> None:
    """A package `alula/` or a conftest.py at the root would change how every other module is found."""
    assert not (ROOT / "alula" / "__init__.py").exists()
    assert not (ROOT / "conftest.py").exists()


def test_every_room_says_that_it_is_typed() -> None:
    missing = [folder for folder in FOLDERS.values() if not (ROOT / folder / "py.typed").exists()]
    assert not missing, f"no py.typed in {missing}"


def test_every_data_file_is_packaged() -> None:
    """A file beside the code that no pattern of package-data matches would be missing from the wheel."""
    forgotten = []
    for package, folder in FOLDERS.items():
        patterns = [*SETUPTOOLS["package-data"]["*"], *SETUPTOOLS["package-data"].get(package, [])]
        for file in (ROOT / folder).rglob("*"):
            if file.is_dir() or file.suffix in {".py", ".pyc", ".md"}:
                continue
            name = file.relative_to(ROOT / folder).as_posix()
            if not any(fnmatch(name, pattern.removeprefix("**/")) for pattern in patterns):
                forgotten.append(f"{folder}/{name}")
    assert not forgotten, f"pyproject.toml, package-data matches none of {forgotten}"


def test_every_dependency_is_pinned() -> None:
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[canonicalize_name(name)] = version
    wanted = required([*PYPROJECT["project"]["dependencies"], *(line for extra in EXTRAS.values() for line in extra)])
    assert wanted <= set(pinned), f"constraints.txt lacks {sorted(wanted - set(pinned))}"
    assert all("+" not in version for version in pinned.values()), "a local version exists on one index only"


def test_every_imported_library_is_declared() -> None:
    """A library that happens to be installed through another one may vanish with the next release of that one."""
    runtime = [line for name, extra in EXTRAS.items() if name != "dev" for line in extra]
    declared = required([*PYPROJECT["project"]["dependencies"], *runtime])
    distributions = packages_distributions()
    undeclared = []
    for folder in FOLDERS.values():
        for file in set((ROOT / folder).rglob("*.py")) - {PEERS}:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.Import(names=names):
                        modules = [alias.name for alias in names]
                    case ast.ImportFrom(module=str(module), level=0):
                        modules = [module]
                    case _:
                        continue
                for top in {module.split(".")[0] for module in modules} - {"alula"} - sys.stdlib_module_names:
                    if not declared & {canonicalize_name(name) for name in distributions.get(top, [top])}:
                        undeclared.append(f"{file.relative_to(ROOT).as_posix()} imports {top}")
    assert not undeclared, f"not in the dependencies of pyproject.toml: {sorted(set(undeclared))}"


def test_torchvision_is_not_required() -> None:
    """It has no CPU build that matches a CPU torch."""
    every = [*PYPROJECT["project"]["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    assert "torchvision" not in required(every)


PROBE = """
import sys
from pathlib import Path
import datasets
import alula.core.spaces
import alula.datasets.store
site = Path(sys.prefix)
assert hasattr(datasets, "load_dataset"), f"{datasets} is not Hugging Face's"
for module in (datasets, alula.core.spaces, alula.datasets.store):
    assert site in Path(module.__file__).parents, f"{module.__name__} was found at {module.__file__}, outside {site}"
"""


@pytest.mark.slow
def test_the_wheel_lives_beside_hugging_face_datasets(tmp_path: Path) -> None:
    """Both `datasets` and ours import from the wheel, wherever Python is started; uninstalling ours leaves theirs."""
    source = tmp_path / "source"
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", PYPROJECT["project"].get("readme")):
        if name is not None:
            shutil.copy(ROOT / name, source)

    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: str | Path, cwd: Path = tmp_path) -> None:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command} in {cwd}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "wheels", source)
    (wheel,) = (tmp_path / "wheels").glob("alula-*.whl")
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, "datasets")

    for cwd in (tmp_path, ROOT, ROOT / "datasets", ROOT / "tests", source):
        run(python, "-c", PROBE, cwd=cwd)
    (source / "probe.py").write_text(PROBE, encoding="utf-8")
    run(python, "probe.py", cwd=source)
    run(python, "-m", "probe", cwd=source)

    run(python, "-m", "pip", "uninstall", "-q", "-y", "alula")
    run(python, "-c", "import datasets; datasets.load_dataset")
