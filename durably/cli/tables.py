"""Tables on stdout: columns under headings, one line a row, as wide as they are; for people, `grep` and `awk` alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import typer
from rich.cells import cell_len

GAP: Final = "  "


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text below the names of their columns."""
    lines = [list(columns), *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        typer.echo(GAP.join(padded).rstrip())


def _one_line(cell: str) -> str:
    """Control characters could be orders to a terminal, and line breaks would tear the row."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cell)
