"""`durably invocations …`: list them, describe one, and act on those that an id or a target names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

import orjson
import typer

from durably.cli.failures import CommandError
from durably.cli.operators.asking import agreed
from durably.cli.operators.no_answers import field_of, parsed
from durably.cli.operators.output import NOTHING, Format, Listing, Row, print_data, print_listing, talk
from durably.cli.operators.sources import RunningServer, Source, Whom, server, source, text
from durably.cli.operators.targets import condition, condition_of_any, is_id
from durably.cli.operators.watching import repeated, run_repeatedly
from durably.cli.tables import print_table
from durably.ids import InvocationStatus

FIELDS: Final = (
    "id", "target", "status", "created_at", "idempotency_key", "invoked_by_id", "retry_count", "next_retry_at",
    "last_failure", "completed_at", "completion_result", "completion_failure",
)  # fmt: skip
JOURNAL_FIELDS: Final = ("index", "entry_type", "name", "invoked_id", "invoked_target", "appended_at", "entry")
COLUMNS: Final = {"ID": "id", "TARGET": "target", "STATUS": "status", "CREATED": "created_at", "FAILURE": "failure"}
BATCH: Final = 500
"""How many are acted on in one request."""
NAMED: Final = 1_000
"""How many names one query tells; others follow in further ones."""
MOST: Final = 100_000
SHOWN: Final = 20
"""How many are shown before a person is asked."""
SOME_FAILED: Final = 3
"""What the process ends with where some of several could not be touched."""


class Act(StrEnum):
    """What can be done to invocations."""

    CANCEL = "cancel"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    RESTART_AS_NEW = "restart-as-new"
    PURGE = "purge"
    PURGE_JOURNAL = "purge-journal"


_UNFINISHED: Final = "status <> 'completed'"
_ENDED: Final = "status = 'completed'"
_FITTING: Final[Mapping[Act, str]] = {
    Act.CANCEL: _UNFINISHED,
    Act.KILL: _UNFINISHED,
    Act.PAUSE: "status in ('running', 'ready', 'backing-off', 'suspended')",
    Act.RESUME: "status = 'paused'",
    Act.RESTART: "status = 'paused'",
    Act.RESTART_AS_NEW: _ENDED,
    Act.PURGE: _ENDED,
    Act.PURGE_JOURNAL: _ENDED,
}
"""Which invocations of a target each is for, as the server has it."""
STATUSES: Final = (*(str(one) for one in InvocationStatus), "ready")


# ---------------------------------------------------------------- looking


def list_invocations(
    names: Sequence[str], whom: Whom, format: Format, *, statuses: Sequence[str], everything: bool, limit: int,
    every_seconds: float | None,
) -> None:  # fmt: skip
    """Those that these names stand for, the newest first."""
    conditions = conditions_of(names, statuses=statuses, everything=everything)

    async def work() -> None:
        async with source(whom) as asked:

            async def show() -> None:
                rows = await found(asked, conditions, limit + 1)
                print_listing(_listing(rows[:limit]), format)
                if len(rows) > limit:
                    talk(f"There are more than these {limit:,}: --limit shows them.")

            await repeated(show, every_seconds)

    run_repeatedly(work, every_seconds)


def conditions_of(names: Sequence[str], *, statuses: Sequence[str], everything: bool) -> list[str]:
    """What invocations of these names fulfil, in SQL. What has ended is asked for by its id, by status, or by all.

    Raises:
        CommandError: a name or a status is none.
    """
    conditions = [condition_of_any(names)] if names else []
    if statuses:
        conditions.append(f"status in ({', '.join(text(_status(one)) for one in statuses)})")
    elif not everything and not any(is_id(name) for name in names):
        conditions.append(_UNFINISHED)
    return conditions


def describe_invocation(id: str, whom: Whom, format: Format) -> None:
    """All that is known of one: where it stands, what it waits for, and its journal."""
    asyncio.run(_describe(id, whom, format))


async def _describe(id: str, whom: Whom, format: Format) -> None:
    async with source(whom) as asked:
        one = await known(asked, id)
        steps = await journal_of(asked, id)
        waits, told = await asked.why(id) if one["status"] != "completed" else (None, "")
    if format is Format.NAME:
        typer.echo(id)
    elif format is Format.TABLE:
        for field, value in one.items():
            if value is not None:
                typer.echo(f"{field.replace('_', ' ')}: {value}")
        if told:
            typer.echo(f"\n{told}")
        if steps:
            typer.echo()
            _print_journal(steps)
    else:
        print_data({**one, "waits": None if waits is None else waits["waits"], "journal": steps}, format)


def show_journal(id: str, whom: Whom, format: Format) -> None:
    """The entries of its journal, as far as they are kept."""
    asyncio.run(_show_journal(id, whom, format))


async def _show_journal(id: str, whom: Whom, format: Format) -> None:
    async with source(whom) as asked:
        await known(asked, id)
        steps = await journal_of(asked, id)
    match format:
        case Format.TABLE:
            _print_journal(steps)
        case Format.NAME:
            for step in steps:
                typer.echo(str(step["index"]))
        case _:
            print_data(steps, format)


async def journal_of(asked: Source, id: str) -> list[Row]:
    """The entries of a journal, as far as they are kept."""
    rows = await asked.rows(
        'select "index", entry_type, name, invoked_id, invoked_target, appended_at, entry_json '
        f'from sys_journal where id = {text(id)} order by "index"'
    )
    return [
        {**{field: row.get(field) for field in JOURNAL_FIELDS}, "entry": orjson.loads(row.get("entry_json") or "null")}
        for row in rows
    ]


def _print_journal(steps: Sequence[Row]) -> None:
    if not steps:
        talk("There is no journal of it (any more): it has not started, or journal_retention is over.")
        return
    cells = [
        (str(one["index"]), one["appended_at"] or NOTHING, one["entry_type"] or NOTHING, _details(one)) for one in steps
    ]
    print_table(["#", "AT", "ENTRY", "DETAILS"], cells)


def _details(step: Row) -> str:
    return " ".join(str(step[field]) for field in ("name", "invoked_target", "invoked_id") if step[field] is not None)


# ---------------------------------------------------------------- acting


def act_on_invocations(act: Act, names: Sequence[str], whom: Whom, format: Format, *, yes: bool, step: int) -> None:
    """Show what would be touched, ask, and do it.

    Raises:
        CommandError: nothing of it is there, or the answer is no.
        typer.Exit: some could not be touched.
    """
    conditions = [condition_of_any(names[first : first + NAMED]) for first in range(0, len(names), NAMED)]
    asyncio.run(_act(act, names, conditions, whom, format, yes=yes, step=step))


async def _act(
    act: Act, names: Sequence[str], conditions: Sequence[str], whom: Whom, format: Format, *, yes: bool, step: int
) -> None:
    async with server(whom) as running:
        only_ids = all(is_id(name) for name in names)
        fits = [] if only_ids else [_fit(act, names)]
        touched = [row for one in conditions for row in await found(running, [one, *fits], MOST)]
        rows = [*{row["id"]: row for row in touched}.values()]  # A target and an id may name the same.
        there = {row["id"] for row in rows}
        missing = [name for name in names if is_id(name) and name not in there]
        if missing and not rows:
            raise _unknown(missing[0], running)
        for name in missing:
            talk(str(_unknown(name, running)))
        if not rows:
            await _refuse_unknown(running, names)
            talk(f"There is nothing to {act} of {', '.join(names)}.")
            print_listing(_results([], []), format) if format is not Format.TABLE else None
            return
        if not yes:
            _show_beforehand(rows)
        count = f"{len(rows):,} invocation{'' if len(rows) == 1 else 's'}"
        agreed(f"{act.capitalize()} {count}?", yes=yes)
        succeeded, failed = await carried_out(running, act, [row["id"] for row in rows], step)
        failed += [{"id": name, "done": False, "error": "there is no such invocation"} for name in missing]
    print_listing(_results(succeeded, failed), format)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _fit(act: Act, names: Sequence[str]) -> str:
    """Of a target, what the verb applies to; what is named by its id is tried in any case."""
    ids = [name for name in names if is_id(name)]
    return f"({' or '.join([_FITTING[act], *([condition_of_any(ids)] if ids else [])])})"


def _show_beforehand(rows: Sequence[Row]) -> None:
    """On stderr: stdout is for what was done."""
    for row in rows[:SHOWN]:
        talk(f"  {row['id']}  {row['target']}  {row['status']}")
    if len(rows) > SHOWN:
        talk(f"  ... and {len(rows) - SHOWN:,} more")


async def carried_out(
    running: RunningServer, act: Act, ids: Sequence[str], step: int = 0
) -> tuple[list[Row], list[Row]]:
    """Do it: what was touched, and what could not be."""
    if step:
        return await _each_from_a_step(running, act, ids, step)
    succeeded: list[Row] = []
    failed: list[Row] = []
    for first in range(0, len(ids), BATCH):
        part = list(ids[first : first + BATCH])
        answer = await running.ask("POST", f"/internal/invocations_batch_operations/{act}", {"invocation_ids": part})
        told = parsed(answer, running.where)
        succeeded += [_success(one) for one in told["succeeded"]]
        failed += [{"id": one["invocation_id"], "done": False, "error": one["error"]} for one in told["failed"]]
    return succeeded, failed


async def _each_from_a_step(
    running: RunningServer, act: Act, ids: Sequence[str], step: int
) -> tuple[list[Row], list[Row]]:
    succeeded: list[Row] = []
    failed: list[Row] = []
    for id in ids:
        try:
            answer = await running.ask("PATCH", f"/invocations/{quote(id, safe='')}/{act}?from={step}")
        except CommandError as error:
            failed.append({"id": id, "done": False, "error": str(error)})
        else:
            new_id = field_of(answer, running.where, "new_invocation_id", str) if answer.content else None
            succeeded.append({"id": id, "done": True, "new_id": new_id})
    return succeeded, failed


def _success(one: object) -> Row:
    if isinstance(one, dict):
        return {"id": one["old_invocation_id"], "done": True, "new_id": one["new_invocation_id"]}
    return {"id": one, "done": True}


def _results(succeeded: Sequence[Row], failed: Sequence[Row]) -> Listing:
    has_new = any("new_id" in row for row in succeeded)
    columns = {"ID": "id", "DONE": "done", **({"NEW ID": "new_id"} if has_new else {}), "ERROR": "error"}
    return Listing(
        fields=("id", "done", "new_id", "error"), columns=columns, name="id", rows=[*succeeded, *failed], nothing=""
    )


# ---------------------------------------------------------------- what both need


async def known(asked: Source, id: str) -> dict[str, Any]:
    """An invocation, with all of `FIELDS`.

    Raises:
        CommandError: there is none with this id.
    """
    rows: Sequence[Row] = await found(asked, [condition(id)], 1) if is_id(id) else []
    if not rows:
        raise _unknown(id, asked)
    return {field: rows[0].get(field) for field in FIELDS}


async def found(asked: Source, conditions: Sequence[str], limit: int) -> Sequence[Row]:
    """The invocations that fulfil all of these conditions, the newest first."""
    where = f" where {' and '.join(conditions)}" if conditions else ""
    return await asked.rows(
        f"select {', '.join(FIELDS)} from sys_invocation{where} order by created_at desc, id desc limit {limit}"
    )


def _listing(rows: Sequence[Row]) -> Listing:
    told = [{**row, "failure": _first_line(row.get("completion_failure") or row.get("last_failure"))} for row in rows]
    return Listing(
        fields=FIELDS, columns=COLUMNS, name="id", rows=told,
        nothing="There are none. --all shows those that have ended, too.",
    )  # fmt: skip


def _first_line(failure: str | None) -> str | None:
    """What fits a table: the traceback is told by `describe`."""
    return None if failure is None else failure.partition("\n")[0]


def _status(name: str) -> str:
    if name not in STATUSES:
        raise CommandError(f"'{name}' is no status. There are {', '.join(STATUSES)}.")
    return name


async def _refuse_unknown(asked: RunningServer, names: Sequence[str]) -> None:
    """A target of which nothing is there may have a slip in it."""
    known = [one["name"] for one in (await asked.get("/services"))["services"]]
    for name in names:
        service = name.partition("/")[0]
        if not is_id(name) and service not in known:
            raise CommandError(f"'{service}' does not run at {asked.where}. There are {', '.join(known)}.")


def _unknown(id: str, asked: Source) -> CommandError:
    return CommandError(
        f"There is no invocation {id} in {asked.where}, or its outcome is no longer kept. Its log lines have its id, "
        "and durably invocations list --all shows what there is."
    )
