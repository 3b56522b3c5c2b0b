"""What `-o json` prints fits the schema of its command in docs/command-output.schema.json."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

import jsonschema
import orjson

from tests.processes import ROOT

FILE = ROOT / "docs" / "command-output.schema.json"
SCHEMAS: dict[str, Any] = orjson.loads(FILE.read_bytes())


def command_of(arguments: Sequence[str]) -> str:
    """The command that a line of arguments begins with, as the file names it."""
    name: str
    (name,) = {" ".join(arguments[:length]) for length in (1, 2)} & SCHEMAS["commands"].keys()
    return name


def assert_fits(command: str, data: object) -> None:
    """Fail unless the data is what the command prints."""
    _validator(command).validate(data)


@cache
def _validator(command: str) -> Any:
    return jsonschema.Draft202012Validator(
        {**SCHEMAS, "$ref": f"#/commands/{quote(command)}"}, format_checker=jsonschema.FormatChecker()
    )
