"""Where the examples are that come with durably, and what a person types here to serve one of them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from durably.cli.failures import CommandError

EXAMPLES: Final = "examples"
_TREE: Final = Path(__file__).parents[2]


def examples_folder() -> Path:
    """Where the folder `examples` is: inside an installed package, or at the root of a source tree."""
    for folder in (Path(__file__).parent / "packaged", _TREE):
        if (folder / EXAMPLES / "tickets.py").is_file():
            return folder
    raise CommandError(
        "The examples are missing: this durably was neither installed from a wheel nor is it a source tree."
    )


def server_path() -> str:
    """PYTHONPATH for a server of the examples: they, then this durably, then what was there."""
    folders = [str(examples_folder()), str(_TREE), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, folders))


def serve_command(target: str, *options: str) -> str:
    """A shell command that serves an example from the current folder, however durably got onto this machine."""
    command = shlex.join([*_durably(), "serve", target, *options])
    folder = examples_folder()
    return command if Path.cwd() == folder else f"PYTHONPATH={shlex.quote(str(folder))} {command}"


def _durably() -> list[str]:
    """The command of this interpreter's environment, by its bare name where that finds it."""
    own = shutil.which("durably", path=str(Path(sys.executable).parent))
    if own is None:
        return [sys.executable, "-m", "durably"]
    found = shutil.which("durably")
    return ["durably"] if found is not None and Path(found).samefile(own) else [own]
