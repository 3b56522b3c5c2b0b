"""`durably config show`: the configuration, value by value, with the place that each comes from."""

from __future__ import annotations

import os

import orjson
from rich.console import Console

from durably.cli.operators.output import Format, print_result
from durably.cli.tables import print_table
from durably.configuration import ENVIRONMENT_VARIABLE, Configuration, load_configuration


def show_configuration(environment: str | None, *, format: Format) -> None:
    """Print it, for this environment or for the one that `DURABLY_ENV` names.

    Raises:
        ConfigurationError: it makes no sense.
    """
    chosen = {} if environment is None else {ENVIRONMENT_VARIABLE: environment}
    configuration = load_configuration(environ=os.environ | chosen)
    origin = configuration.environment_origin if environment is None else "--env"
    print_result(
        _data(configuration, origin), format,
        names=(f"{one.section}.{one.key}" for one in configuration.settings),
        tell=lambda: _print(configuration, origin), is_long=True,
    )  # fmt: skip


def _data(configuration: Configuration, origin: str) -> dict[str, object]:
    return {
        "environment": {"value": configuration.environment, "from": origin},
        "file": None if configuration.path is None else str(configuration.path),
        "settings": [
            {"section": one.section, "key": one.key, "value": one.value, "from": one.origin}
            for one in configuration.settings
        ],
    }


def _print(configuration: Configuration, origin: str) -> None:
    talk = Console(stderr=True, highlight=False, soft_wrap=True)
    talk.print(f"Environment: {configuration.environment} ({origin})", markup=False)
    talk.print(f"File: {configuration.path or 'none; durably.toml in this folder would be read'}", markup=False)
    if not configuration.settings:
        talk.print("Nothing is configured: all is as it is by default.")
        return
    print_table(
        ["SETTING", "VALUE", "FROM"],
        [(f"{one.section}.{one.key}", _shown(one.value), one.origin) for one in configuration.settings],
    )


def _shown(value: object) -> str:
    return "" if value is None else orjson.dumps(value).decode()
