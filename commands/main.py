"""Entry point: finds the command, composes its configuration, and turns errors into one readable message."""

import ctypes
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

# Network threads that spin while they wait would take the physics threads' cores; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Without a display MuJoCo draws by EGL; read when MuJoCo loads, which fails where EGL is chosen and missing.
if sys.platform == "linux" and "DISPLAY" not in os.environ:
    try:
        ctypes.CDLL("libEGL.so.1")
        os.environ.setdefault("MUJOCO_GL", "egl")
    except OSError:
        os.environ.setdefault("MUJOCO_GL", "disabled")

from alula.commands.usage import command_usage, overview
from alula.configs.compose import compose_config
from alula.configs.schemas import COMMANDS
from alula.core.errors import AlulaError, RenderError, unknown_name

FLAGS = {"--json", "--debug", "--help", "-h", "--version"}
SWITCHES = {"--force", "--strict"}
"""Short for a setting: `--force` is `force=true`."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells expect."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `alula COMMAND [key=value ...] [--json] [--debug]`; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    flags = {word for word in words if word.startswith("-")} - SWITCHES
    words = [f"{word.removeprefix('--')}=true" if word in SWITCHES else word for word in words]
    words = [word for word in words if word not in flags]
    if "--version" in flags:
        print(version("alula"))
        return 0
    try:
        unknown = flags - FLAGS
        if unknown:
            raise AlulaError(unknown_name("flag", sorted(unknown)[0], FLAGS))
        if not words:
            print(overview())
            return 0
        return _run(words[0], words[1:], flags)
    except AlulaError as error:
        return _fail(f"error: {error}", error, flags)
    except KeyboardInterrupt as error:
        return _fail("interrupted", error, flags, INTERRUPTED)
    except Exception as error:
        message = f"internal error: {type(error).__name__}: {error}\nThis is a defect of alula; --debug shows where."
        return _fail(message, error, flags)


def _run(command: str, words: list[str], flags: set[str]) -> int:
    if command not in COMMANDS:
        raise AlulaError(unknown_name("command", command, COMMANDS))
    if flags & {"--help", "-h"}:
        print(command_usage(command, words))
        return 0
    config = compose_config(command, words)
    _load_physics()
    module = import_module(f"alula.commands.{command}" if command != "list" else "alula.commands.listing")
    from alula.training.loop import Interrupted

    try:
        module.run(config, "--json" in flags)
    except Interrupted:
        print("interrupted; everything is saved. Go on with the same command and resume=true", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt as error:
        if not hasattr(config, "resume"):
            raise
        return _fail("interrupted. Go on with the same command and resume=true", error, flags, INTERRUPTED)
    return 0


def _load_physics() -> None:
    """Load MuJoCo, whose choice of OpenGL may fail already now, even where nothing is to be drawn.

    Raises:
        RenderError: it does.
    """
    try:
        import_module("mujoco")
    except Exception as error:  # PyOpenGL raises many unrelated types
        raise RenderError(
            f"MuJoCo cannot load OpenGL with MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')} ({error}). Install a "
            "software renderer (Debian: apt-get install libegl1 libgl1-mesa-dri) and set MUJOCO_GL=egl, or go without "
            "pictures: MUJOCO_GL=disabled"
        ) from error


def _fail(message: str, error: BaseException, flags: set[str], status: int = 1) -> int:
    if "--debug" in flags:
        raise error
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
