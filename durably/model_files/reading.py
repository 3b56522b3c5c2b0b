"""Reads and checks files of models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from durably.model_files.checking import check, check_together
from durably.model_files.declarations import ModelDeclaration, ModelFile
from durably.model_files.parsing import parse
from durably.model_files.problems import ModelFileError, ProblemList


def read_file(path: Path) -> ModelFile:
    """One file.

    Raises:
        ModelFileError: it is not right.
        OSError: it cannot be read.
    """
    return read_files([path])[0]


def read_files(paths: Iterable[Path]) -> list[ModelFile]:
    """Several files, which are checked together.

    Raises:
        ModelFileError: one of them is not right; shows the problems of all.
        OSError: one cannot be read.
    """
    files: list[ModelFile] = []
    found: list[ProblemList] = []
    together: list[tuple[ModelDeclaration, ProblemList]] = []
    for path in paths:
        data = path.read_bytes()
        text = data.decode("utf-8-sig", errors="replace")
        problems = ProblemList(str(path), text)
        models = parse(text, problems) if _is_utf_8(data, problems) else []
        check(models, problems)
        together += [(model, problems) for model in models]
        found.append(problems)
        files.append(ModelFile(path=str(path), text=text, models=models))
    check_together(together)
    every = [one for problems in found for one in sorted(problems.found, key=lambda one: (one.line, one.column))]
    if every:
        raise ModelFileError(every)
    return files


def _is_utf_8(data: bytes, problems: ProblemList) -> bool:
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig").split("\n")
        problems.add_at(
            len(before), len(before[-1]) + 1, 1, f"The file is not UTF-8: {error.reason}. Save it as UTF-8."
        )
        return False
    return True
