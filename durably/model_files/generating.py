"""Writes a Python module for each model of a folder. A module that is right already is not touched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from durably.model_files.declarations import ModelFile
from durably.model_files.names import snake
from durably.model_files.reading import read_files
from durably.model_files.rendering import GENERATED, render

SUFFIX = ".rst"


class GenerationError(Exception):
    """Nothing was written; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedModules:
    """What a run of `generate` found and did."""

    written: Sequence[Path]
    unchanged: Sequence[Path]
    removed: Sequence[Path]
    """Modules that were generated for models that are not there any more."""


def read_folder(folder: Path) -> list[ModelFile]:
    """The files of models in a folder, by name.

    Raises:
        ModelFileError: one of them is not right; shows the problems of all.
        OSError: one cannot be read.
    """
    return read_files(sorted(folder.glob(f"*{SUFFIX}")))


def generate(folder: Path) -> GeneratedModules:
    """Write the modules of the models in a folder beside their files. Either all are written, or none.

    Raises:
        ModelFileError: a file is not right; shows the problems of all.
        GenerationError: a module of another origin is where one would be written.
        OSError: a file cannot be read or written.
    """
    wanted = {
        folder / f"{snake(model.name.text)}.py": render(model, Path(file.path).name)
        for file in read_folder(folder)
        for model in file.models
    }
    present = {path: path.read_text("utf-8") for path in wanted if path.exists()}
    for path, text in present.items():
        if GENERATED not in text:
            raise GenerationError(
                f"{path} is there already and was not generated, so it is left alone and nothing was written. Move it, "
                "or give the model another name."
            )
    changed = [path for path, text in wanted.items() if present.get(path) != text]
    for path in changed:
        _write(path, wanted[path])
    removed = [path for path in _generated_in(folder) if path not in wanted]
    for path in removed:
        path.unlink()
    return GeneratedModules(written=changed, unchanged=[one for one in wanted if one not in changed], removed=removed)


def _write(path: Path, text: str) -> None:
    """At once: who imports it meanwhile finds the old module or the new one."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)


def _generated_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*.py")):
        if GENERATED in path.read_text("utf-8", errors="replace")[:1_000]:
            yield path
