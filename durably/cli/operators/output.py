"""Answers on stdout: a table or sentences for people, JSON, YAML or names for programs. Talk goes to stderr.

A listing is the same data in each form. Its schema is in docs/operations.md: a list of objects with the fields of
`Listing.fields`, all of them there, null where there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec
import orjson
import typer
from rich.console import Console

from durably.cli.tables import print_table

Row = Mapping[str, Any]


class Format(StrEnum):
    """What an answer is printed as."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Rows, with the fields that programs get and the columns that people see."""

    fields: Sequence[str]
    columns: Mapping[str, str]
    """Headings, and the fields below them."""
    name: str
    """The field by which other commands name a row."""
    rows: Sequence[Row]
    nothing: str
    """The sentence for people where there is none."""

    def data(self) -> list[dict[str, Any]]:
        return [{field: row.get(field) for field in self.fields} for row in self.rows]


def print_listing(listing: Listing, format: Format) -> None:
    """Print it on stdout."""
    match format:
        case Format.TABLE:
            if not listing.rows:
                talk(listing.nothing)
                return
            cells = [[in_a_cell(row.get(field)) for field in listing.columns.values()] for row in listing.rows]
            print_table(list(listing.columns), cells)
        case Format.NAME:
            for row in listing.rows:
                typer.echo(in_a_cell(row.get(listing.name)))
        case _:
            print_data(listing.data(), format)


def print_result(
    data: object, format: Format, *, names: Iterable[str], tell: Callable[[], None], is_long: bool = False
) -> None:
    """Print what is no listing: `tell` tells it to people, `names` are what other commands take.

    As JSON it is one line, unless it `is_long`.
    """
    match format:
        case Format.TABLE:
            tell()
        case Format.NAME:
            for name in names:
                typer.echo(name)
        case Format.JSON if not is_long:
            typer.echo(orjson.dumps(data).decode())
        case _:
            print_data(data, format)


def print_data(data: object, format: Format) -> None:
    """Print what is no listing, as JSON unless it is to be YAML."""
    if format is Format.YAML:
        typer.echo(msgspec.yaml.encode(data).decode(), nl=False)
    else:
        typer.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def in_a_cell(value: object) -> str:
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else orjson.dumps(value).decode()


NOTHING: Final = "-"


def talk(text: str) -> None:
    """Tell a person something that is no answer."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(text, markup=False)
