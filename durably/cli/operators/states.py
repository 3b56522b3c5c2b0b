"""`durably state …` and `durably kv …`: the state of objects, read, edited, patched and cleared.

What is read is the state after the last completed handler: what one that runs has changed so far is not in it. An edit
is a message in the mailbox of its object, so it waits for what came before, and it is for the state that was read: if
that has changed by then, nothing happens.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any, Final, cast
from urllib.parse import quote

import click
import orjson
import typer

from durably.cli.failures import CommandError
from durably.cli.operators.asking import agreed
from durably.cli.operators.invocations import SOME_FAILED
from durably.cli.operators.output import Format, Listing, print_data, print_listing, talk
from durably.cli.operators.services import services_of
from durably.cli.operators.sources import RunningServer, Source, Whom, server, source, text
from durably.cli.operators.targets import object_named
from durably.cli.operators.watching import repeated, run_repeatedly
from durably.runtime.clock import SystemClock
from durably.runtime.lifecycle.state_edits import state_version

LOOKS: Final = 40
LOOK_EVERY_US: Final = 50_000
SHOWN: Final = 20

State = Mapping[str, bytes | None]
"""The fields of an object, as they are stored; None for one that is too large for a query."""


def get_state(
    name: str, key: str | None, whom: Whom, format: Format, *, field: str | None, every_seconds: float | None
) -> None:
    """The fields of an object; without a key, the objects that have some."""
    service, found_key = _object(name, key)

    async def work() -> None:
        async with source(whom) as asked:

            async def show() -> None:
                if found_key is None:
                    await _print_keys(asked, service, format)
                else:
                    state = await read_state(asked, service, found_key)
                    if not state:
                        await _refuse_unknown_class(asked, service)
                    _print(state, field, format, f"{service}/{found_key}")

            await repeated(show, every_seconds)

    run_repeatedly(work, every_seconds)


def edit_state(name: str, key: str | None, whom: Whom, format: Format, *, yes: bool) -> None:
    """Open the state in an editor, and store what comes back."""

    def edited(fields: dict[str, Any]) -> dict[str, Any]:
        before = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        after = _from_editor(before)
        return fields if after is None else _parsed(after, "What the editor left")

    asyncio.run(_change(name, key, whom, format, edited, yes=yes))


def _from_editor(before: str) -> str | None:
    """What the editor of `VISUAL` or `EDITOR` leaves; None if it saves nothing.

    Raises:
        CommandError: there is no such editor, or it fails.
    """
    interrupts = signal.signal(signal.SIGINT, _leave_it_to_the_editor)
    try:
        return click.edit(before, extension=".json")
    except (click.ClickException, OSError, ValueError) as error:  # ValueError: quotes that do not close, or no UTF-8.
        reason = error.message if isinstance(error, click.ClickException) else str(error)
        raise CommandError(
            f"The editor failed: {reason.rstrip('.')}. VISUAL or EDITOR names the command of the editor. Nothing was "
            "changed."
        ) from error
    finally:
        signal.signal(signal.SIGINT, interrupts)


def _leave_it_to_the_editor(_number: int, _frame: FrameType | None) -> None:
    """Ctrl-C goes to both processes."""


def patch_state(name: str, key: str | None, whom: Whom, format: Format, *, patch: str, yes: bool) -> None:
    """Apply a JSON Patch (RFC 6902) to the fields of an object."""
    operations = _loaded(patch, "The patch")

    def patched(fields: dict[str, Any]) -> dict[str, Any]:
        jsonpatch: Any = import_module("jsonpatch")
        jsonpointer: Any = import_module("jsonpointer")
        try:
            result = jsonpatch.JsonPatch(operations).apply(fields)
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError) as error:
            raise CommandError(
                f"The patch does not fit: {error}. It is a JSON Patch (RFC 6902), such as "
                """[{"op": "replace", "path": "/count", "value": 7}]."""
            ) from error
        return _fields(result, "The patched state")

    asyncio.run(_change(name, key, whom, format, patched, yes=yes))


def clear_state(name: str, key: str | None, whom: Whom, format: Format, *, yes: bool) -> None:
    """Delete the state of an object, or of all objects of a class."""
    asyncio.run(_clear(name, key, whom, format, yes=yes))


# ---------------------------------------------------------------- reading


def _object(name: str, key: str | None) -> tuple[str, str | None]:
    service, own_key = object_named(name)
    if key is not None and own_key is not None:
        raise CommandError(f"Two keys are given: {own_key} and {key}. Write Object key, or Object/key.")
    return service, own_key if key is None else key


async def _refuse_unknown_class(asked: Source, service: str) -> None:
    """A class of which no object has state may have a slip in its name. What a store has seen is known, too.

    Raises:
        CommandError: it neither runs nor has ever been called or kept.
    """
    if await asked.rows(f"select id from sys_invocation where target_service_name = {text(service)} limit 1"):
        return
    if await asked.rows(f"select service_key from state where service_name = {text(service)} limit 1"):
        return
    known = [row["name"] for row in await services_of(asked)]
    if service not in known:
        there = f"There are {', '.join(known)}." if known else "There are none."
        raise CommandError(f"There is no class '{service}' in {asked.where}. {there}")


async def keys_with_state(asked: Source, service: str) -> list[str]:
    """The keys of a class whose objects have state."""
    rows = await asked.rows(
        f"select distinct service_key from state where service_name = {text(service)} order by service_key"
    )
    return [row["service_key"] for row in rows]


async def _print_keys(asked: Source, service: str, format: Format) -> None:
    rows = await asked.rows(
        "select service_name, service_key, count(*) as fields, sum(value_length) as bytes from state "
        f"where service_name = {text(service)} group by service_name, service_key order by service_key"
    )
    if not rows:
        await _refuse_unknown_class(asked, service)
    rows = [{**row, "object": f"{quote(row['service_name'])}/{quote(row['service_key'], safe='')}"} for row in rows]
    print_listing(
        Listing(
            fields=("object", "service_name", "service_key", "fields", "bytes"),
            columns={"KEY": "service_key", "FIELDS": "fields", "BYTES": "bytes"}, name="object", rows=rows,
            nothing=f"No object of {service} has state in {asked.where}.",
        ),
        format,
    )  # fmt: skip


async def read_state(asked: Source, service: str, key: str) -> State:
    """What is stored of an object."""
    rows = await asked.rows(
        f"select key, value from state where service_name = {text(service)} and service_key = {text(key)} order by key"
    )
    return {row["key"]: bytes.fromhex(row["value"]) if "value" in row else None for row in rows}


def shown_state(state: State) -> dict[str, Any]:
    """The fields as JSON; those that are none, and those that are too large, as an object that says so."""
    return _decoded(state) | _undecoded(state)


def _decoded(state: State) -> dict[str, Any]:
    """The fields that are JSON."""
    fields: dict[str, Any] = {}
    for name, value in state.items():
        with suppress(orjson.JSONDecodeError):
            if value is not None:
                fields[name] = orjson.loads(value)
    return fields


def _undecoded(state: State) -> dict[str, Any]:
    """The others."""
    known = _decoded(state)
    return {
        name: {"too_large": True} if value is None else {"hex": value.hex()}
        for name, value in state.items()
        if name not in known
    }


def _print(state: State, field: str | None, format: Format, name: str) -> None:
    fields = shown_state(state)
    if field is not None:
        if field not in fields:
            known = f"It has {', '.join(fields)}." if fields else "It has no state."
            raise CommandError(f"{name} has no field '{field}'. {known}")
        if format is Format.TABLE:
            typer.echo(orjson.dumps(fields[field]).decode())
        elif format is Format.NAME:
            typer.echo(field)
        else:
            print_data(fields[field], format)
    elif format in (Format.JSON, Format.YAML):
        print_data(fields, format)
    else:
        rows = [{"field": one, "value": orjson.dumps(fields[one]).decode()} for one in sorted(fields)]
        columns = {"FIELD": "field", "VALUE": "value"}
        listing = Listing(
            fields=("field", "value"), columns=columns, name="field", rows=rows, nothing=f"{name} has no state."
        )
        print_listing(listing, format)


# ---------------------------------------------------------------- changing


async def _change(
    name: str,
    key: str | None,
    whom: Whom,
    format: Format,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    yes: bool,
) -> None:
    service, found_key = _object(name, key)
    if found_key is None:
        raise CommandError(f"'{name}' names no object. Write Object key, or Object/key.")
    async with server(whom) as running:
        stored = await read_state(running, service, found_key)
        if not stored:
            await _refuse_unknown_class(running, service)
        state = _whole(stored, f"{service}/{found_key}")
        before = _decoded(state)
        after = change(orjson.loads(orjson.dumps(before)))
        if after == before:
            talk("Nothing was changed.")
            return
        _show_difference(before, after)
        agreed(f"Change the state of {service}/{found_key}?", yes=yes)
        kept = {one: value for one, value in state.items() if one not in before}
        stays = {one: state[one] for one in after if one in before and after[one] == before[one]}
        new_state = {**{one: orjson.dumps(value) for one, value in after.items()}, **stays, **kept}
        answer = await running.ask(
            "POST",
            f"/services/{quote(service, safe='')}/state",
            {
                "object_key": found_key,
                "new_state": {one: list(value) for one, value in new_state.items()},
                "version": state_version(state),
            },
        )
        row = await _outcome(running, answer.headers["x-restate-id"], f"{service}/{found_key}")
    _print_outcomes([row], format)


def _whole(state: State, name: str) -> Mapping[str, bytes]:
    """What can be written back."""
    large = [one for one, value in state.items() if value is None]
    if large:
        raise CommandError(
            f"The field '{large[0]}' of {name} is too large for a query, so the state cannot be edited from here. "
            "Change it by a handler."
        )
    return {one: value for one, value in state.items() if value is not None}


async def _clear(name: str, key: str | None, whom: Whom, format: Format, *, yes: bool) -> None:
    service, found_key = _object(name, key)
    async with server(whom) as running:
        keys = await keys_with_state(running, service)
        if found_key is not None:
            keys = [one for one in keys if one == found_key]
        if not keys:
            await _refuse_unknown_class(running, service)
            talk(f"{service if found_key is None else f'{service}/{found_key}'} has no state.")
            return
        for one in keys[:SHOWN] if not yes else ():
            talk(f"  {service}/{one}")
        if len(keys) > SHOWN and not yes:
            talk(f"  ... and {len(keys) - SHOWN:,} more")
        agreed(f"Delete the state of {len(keys):,} object{'' if len(keys) == 1 else 's'}?", yes=yes)
        ids = {
            one: orjson.loads(
                (await running.ask("DELETE", f"/objects/{quote(service, safe='')}/{quote(one, safe='')}")).content
            )["invocation_id"]
            for one in keys
        }
        rows = [await _outcome(running, id, f"{service}/{one}") for one, id in ids.items()]
    _print_outcomes(rows, format)


async def _outcome(running: RunningServer, id: str, object: str) -> dict[str, Any]:
    """What has become of a message by now: it waits for what came before."""
    clock = SystemClock()
    for _ in range(LOOKS):
        rows = await running.rows(f"select status, completion_failure from sys_invocation where id = {text(id)}")
        if not rows or rows[0]["status"] == "completed":  # What is forgotten already was done.
            error = rows[0].get("completion_failure") if rows else None
            return {"object": object, "id": id, "done": error is None, "error": error}
        await clock.sleep(LOOK_EVERY_US)
    talk(f"{object} is busy: the change waits for its turn. durably why {id} says for what.")
    return {"object": object, "id": id, "done": None}


def _print_outcomes(rows: list[dict[str, Any]], format: Format) -> None:
    columns = {"OBJECT": "object", "ID": "id", "DONE": "done", "ERROR": "error"}
    fields = ("object", "id", "done", "error")
    print_listing(Listing(fields=fields, columns=columns, name="object", rows=rows, nothing=""), format)
    if any(row["done"] is False for row in rows):
        raise typer.Exit(SOME_FAILED)


def _show_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name in sorted({*before, *after}):
        if name not in after:
            talk(f"  - {name}: {_line(before[name])}")
        elif name not in before:
            talk(f"  + {name}: {_line(after[name])}")
        elif before[name] != after[name]:
            talk(f"  ~ {name}: {_line(before[name])} -> {_line(after[name])}")


def _line(value: Any) -> str:
    return orjson.dumps(value).decode()


def _parsed(given: str, what: str) -> dict[str, Any]:
    return _fields(_loaded(given, what), what)


def _loaded(given: str, what: str) -> Any:
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError as error:
        raise CommandError(f"{what} is not JSON: {error}. Nothing was changed.") from error


def _fields(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CommandError(f"{what} is no JSON object with the fields of the state. Nothing was changed.")
    return cast("dict[str, Any]", value)
