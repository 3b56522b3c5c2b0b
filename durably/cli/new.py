"""`durably new`: a project that runs and tests at once, of virtual objects, or of models in an `.rst` file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import typer

from durably.cli.failures import CommandError
from durably.cli.generate import generate_modules

TEMPLATES: Final = Path(__file__).with_name("new_projects")
_SUFFIX: Final = ".txt"
"""Of the files of a template: they are no part of this program."""


def make_project(folder: Path, *, models: bool) -> None:
    """Make a project in a folder that is not there, or empty.

    Raises:
        CommandError: the folder has something in it, or cannot be written.
    """
    template = TEMPLATES / ("models" if models else "plain")
    if models and find_spec("lark") is None:
        raise CommandError(
            "A project of models needs lark, which reads .rst files: pip install 'durably[models]'. Nothing was "
            "written."
        )
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise CommandError(f"{folder.absolute()} is not empty, so nothing was written. Name another folder.")
        for source in sorted(template.rglob(f"*{_SUFFIX}")):
            path = folder / source.relative_to(template).with_suffix("")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source.read_text("utf-8"), "utf-8")
            typer.echo(f"Written: {path}")
    except OSError as error:
        raise CommandError(f"{folder} cannot be written: {error}.") from error
    if models:
        generate_modules(folder / "models")
    where = "" if folder == Path() else f"cd {folder} && "
    typer.echo(f"Start it, and leave it running while you write: {where}durably dev")
