"""`load_configuration`: the file and the environment variables become one `Configuration`, or a sentence.

Later ones win: defaults, `[section]`, `[environment.section]`, `DURABLY_SECTION_KEY`. What no version of durably reads
is refused, in every environment of the file, so that a slip is found before the day on which it matters. The paths of
files that the file names count from its own folder; those of variables, and of commands, from the current one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any, Final, cast, get_args, get_origin, get_type_hints
from urllib.parse import quote, unquote

import msgspec

from durably.configuration.sections import (
    DEFAULT_ORIGIN,
    DOORS,
    FILE_KEYS,
    SECTIONS,
    SQLITE_PREFIX,
    Configuration,
    Section,
    Setting,
    shown_value,
    values_of,
)
from durably.errors import ConfigurationError

FILE_NAME: Final = "durably.toml"
ENVIRONMENT_VARIABLE: Final = "DURABLY_ENV"
CONFIG_VARIABLE: Final = "DURABLY_CONFIG"
DEVELOPMENT: Final = "development"
PRODUCTION: Final = "production"

Given = dict[str, dict[str, tuple[object, str]]]
"""By section and key: a value that somebody gave, and who."""


def load_configuration(
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    default_environment: str = PRODUCTION,
) -> Configuration:
    """The configuration that holds in `folder`, the current one by default.

    `DURABLY_ENV` says which environment it is, else `default_environment`. `DURABLY_CONFIG` names another file. An
    environment variable that is empty counts as one that is not set.

    Raises:
        ConfigurationError: the file or a variable makes no sense; the message names the place and the way out.
    """
    variables = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
    environment = variables.get(ENVIRONMENT_VARIABLE, default_environment)
    path = _path(variables, Path.cwd() if folder is None else folder)
    given: Given = {}
    if path is not None:
        _take_file(given, path, environment)
        _resolve_files(given, path.parent.absolute())
    names_no_door = given.keys().isdisjoint(DOORS)
    _take_variables(given, variables)
    _leave_out_missing_token_files(given)
    sections = {name: _section(name, values) for name, values in given.items()}
    return Configuration(
        environment=environment,
        environment_origin=_variable(ENVIRONMENT_VARIABLE) if ENVIRONMENT_VARIABLE in variables else DEFAULT_ORIGIN,
        path=path,
        settings=tuple(_settings(sections, given)),
        names_no_door=names_no_door,
        **cast("dict[str, Any]", sections),
    )


# ---------------------------------------------------------------- the file


def _path(variables: Mapping[str, str], folder: Path) -> Path | None:
    if CONFIG_VARIABLE not in variables:
        usual = folder / FILE_NAME
        return usual if usual.is_file() else None
    path = folder / variables[CONFIG_VARIABLE]
    if not path.is_file():
        raise ConfigurationError(
            f"There is no file {path}, which {_variable(CONFIG_VARIABLE)} names. Correct the variable, or unset it: "
            f"then {FILE_NAME} in the current folder is read, where there is one."
        )
    return path


def _take_file(given: Given, path: Path, environment: str) -> None:
    """Add what the file says for this environment; look at what it says for the others, too."""
    common: list[tuple[str, object]] = []
    special: list[tuple[str, str, object]] = []
    for name, table in _read(path).items():
        if name in SECTIONS:
            common.append((name, table))
        elif _is_environment(name, table):
            special += [(name, section, values) for section, values in cast("dict[str, object]", table).items()]
        else:
            raise ConfigurationError(
                f"{path.name} has '{name}', which is neither a section nor an environment. "
                f"{_suggestion(name, SECTIONS)} The sections of an environment are written [{name}.server] and so on."
            )
    for section, values in common:
        _take_table(given, section, values, f"{path.name} [{section}]")
    for name, section, values in special:
        place = f"{path.name} [{name}.{section}]"
        if section not in SECTIONS:
            raise ConfigurationError(f"{place} is no section. {_suggestion(section, SECTIONS)}")
        _take_table(given if name == environment else {}, section, values, place)


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from error


def _is_environment(name: str, table: object) -> bool:
    """A table of tables. An empty one might as well be a section with a slip in its name."""
    if not isinstance(table, dict) or (not table and name not in (DEVELOPMENT, PRODUCTION)):
        return False
    return all(isinstance(one, dict) for one in cast("dict[str, object]", table).values())


def _take_table(given: Given, section: str, values: object, place: str) -> None:
    if not isinstance(values, dict):
        raise ConfigurationError(f"{place} is a table of keys and values, not {values!r}.")
    known = _types(section)
    taken = given.setdefault(section, {})
    for key, value in cast("dict[str, object]", values).items():
        if key not in known:
            raise ConfigurationError(f"{place} has a key '{key}', which there is not. {_suggestion(key, known)}")
        taken[key] = (_converted(key, value, known[key], f"{place} {key}", is_text=False), place)


def _resolve_files(given: Given, folder: Path) -> None:
    """Let relative paths begin in the folder of the file. In the current folder they already do."""
    if folder == Path.cwd():
        return
    for section, values in given.items():
        for key, (value, place) in values.items():
            if isinstance(value, str) and key in FILE_KEYS:
                values[key] = (str(folder / value), place)
            elif isinstance(value, str) and (section, key) == ("store", "url"):
                values[key] = (_resolved_url(value, folder), place)


def _resolved_url(url: str, folder: Path) -> str:
    quoted = url.removeprefix(SQLITE_PREFIX)
    if not url.startswith(SQLITE_PREFIX) or not quoted or PurePath(unquote(quoted)).anchor:
        return url
    # A percent sign or a question mark in the name of the folder means itself.
    return f"{SQLITE_PREFIX}{quote(os.fsencode(folder), safe='/: ')}/{quoted}"


# ---------------------------------------------------------------- the environment variables


def _take_variables(given: Given, variables: Mapping[str, str]) -> None:
    known = {f"DURABLY_{section}_{key}".upper(): (section, key) for section in SECTIONS for key in _types(section)}
    for name, value in variables.items():
        if name in known:
            section, key = known[name]
            place = _variable(name)
            type = _types(section)[key]
            several = any(get_origin(part) is tuple for part in get_args(type))
            converted = _converted(key, value.split() if several else value, type, place, is_text=True)
            given.setdefault(section, {})[key] = (converted, place)
        elif name.startswith(tuple(f"DURABLY_{section}_".upper() for section in SECTIONS)):
            raise ConfigurationError(f"{_variable(name)} sets a key which there is not. {_suggestion(name, known)}")


def _leave_out_missing_token_files(given: Given) -> None:
    """A token of a variable wins over a `token_file` of the file that is not there, as on another machine."""
    for values in given.values():
        name, place = values.get("token_file", (None, ""))
        winner = values.get("token", (None, ""))[1]
        if isinstance(name, str) and _is_variable(winner) and not (_is_variable(place) or os.path.exists(name)):
            values["token_file"] = (None, f"{winner}, since {place} names a file that is not there: {name}")


def _is_variable(place: str) -> bool:
    return place.startswith(_variable(""))


def _variable(name: str) -> str:
    return f"the environment variable {name}"


# ---------------------------------------------------------------- values


def _section(name: str, values: Mapping[str, tuple[object, str]]) -> Section:
    return SECTIONS[name](**{key: value for key, (value, _) in values.items()})


def _settings(sections: Mapping[str, Section], given: Given) -> Iterable[Setting]:
    for name in SECTIONS:
        if name in sections:
            for key, value in values_of(sections[name]).items():
                origin = given[name].get(key, (None, DEFAULT_ORIGIN))[1]
                yield Setting(section=name, key=key, value=shown_value(key, value), origin=origin)


def _types(section: str) -> dict[str, Any]:
    return get_type_hints(SECTIONS[section], include_extras=True)


def _converted(key: str, value: object, type: Any, place: str, *, is_text: bool) -> object:
    try:
        converted: object = msgspec.convert(value, type, strict=not is_text)
    except msgspec.ValidationError as error:
        reason = str(error)[:1].lower() + str(error)[1:].replace(" | null", "")  # TOML has none.
        raise ConfigurationError(
            f"{place} is {shown_value(key, value)!r}, which does not fit: {reason}.{_choices(type)}"
        ) from None  # The cause would show what is hidden here.
    return converted


def _choices(type: Any) -> str:
    """What a key takes, where that is one of a few words."""
    parts = get_args(type)
    words = [word for part in parts for word in (part, *get_args(part)) if isinstance(word, str)]
    return f" It is one of {', '.join(words)}." if words else ""


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"There are {', '.join(names)}."
