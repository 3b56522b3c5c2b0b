from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from typer.main import get_command

from durably.cli.commands import application
from durably.cli.operators.output import Format
from tests.cli.output_schemas import SCHEMAS, assert_fits


def commands(group: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """All commands below a group, by name."""
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, *path, name)
        else:
            yield " ".join([*path, name]), one


def prints_json(command: Any) -> bool:
    """It has `-o table|json|yaml|name`, and `--json` beside it."""
    forms = [one for one in command.params if one.default is Format.TABLE]
    assert all("-o" in one.opts for one in forms)
    assert bool(forms) is any("--json" in one.opts for one in command.params)
    return bool(forms)


def test_each_command_that_prints_json_has_a_schema_and_the_schemas_are_sound() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS)
    for schema in SCHEMAS["commands"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    told = {name for name, command in commands(get_command(application)) if prints_json(command)}
    assert told == SCHEMAS["commands"].keys()


@pytest.mark.parametrize(
    ("command", "data"),
    [
        ("invocations list", [{"id": "inv_1"}]),
        ("invocations kill", [{"id": "inv_1", "done": "yes", "new_id": None, "error": None}]),
        ("backup", {"store": "", "file": "", "rows": {"state": -1}, "sha256": "0" * 64}),
        ("config show", {"environment": "production"}),
        ("why", {"id": "inv_1", "waits": []}),
    ],
)
def test_what_does_not_fit_is_refused(command: str, data: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        assert_fits(command, data)
