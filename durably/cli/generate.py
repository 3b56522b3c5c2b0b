"""`durably generate`: a typed Python module for each model in the `.rst` files of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import typer

from durably.cli.failures import CommandError

DEFAULT_FOLDER: Final = Path("models")


def generate_modules(folder: Path) -> None:
    """Write what has changed, and tell which modules there are.

    Raises:
        CommandError: a file is not right, or nothing can be written.
    """
    try:
        from durably.model_files import GenerationError, ModelFileError, generate
    except ModuleNotFoundError as error:
        raise CommandError(str(error)) from None
    if not any(folder.glob("*.rst")):
        raise CommandError(
            f"There are no .rst files in {folder.absolute()}. Write your models there, such as {folder / 'Order.rst'}, "
            "or name the folder that has them: durably generate FOLDER."
        )
    try:
        made = generate(folder)
    except (ModelFileError, GenerationError, OSError) as error:
        raise CommandError(str(error)) from None
    for path in made.written:
        typer.echo(f"Written: {path}")
    for path in made.removed:
        typer.echo(f"Removed: {path}, whose model is not there any more")
    if made.unchanged:
        typer.echo(f"Unchanged: {', '.join(map(str, made.unchanged))}")
