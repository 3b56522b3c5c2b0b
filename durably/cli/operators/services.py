"""`durably services …` and `durably deployments`: what runs here, and how much of it stands where."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import quote

import typer

from durably.cli.failures import CommandError
from durably.cli.operators.output import Format, Listing, Row, in_a_cell, print_data, print_listing, talk
from durably.cli.operators.sources import RunningServer, Source, Whom, source, text
from durably.cli.operators.watching import repeated, run_repeatedly
from durably.cli.tables import print_table

_STATUSES: Final = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused", "completed")
_TYPES: Final = {"service": "Service", "virtual_object": "VirtualObject", "workflow": "Workflow"}


def list_services(whom: Whom, format: Format) -> None:
    """The classes that run; of a file those of which it holds something."""
    asyncio.run(_list(whom, format))


async def _list(whom: Whom, format: Format) -> None:
    async with source(whom) as asked:
        rows = await services_of(asked)
    print_listing(
        Listing(
            fields=("name", "type", "handlers", "public", "revision", "deployment_id"),
            columns={"NAME": "name", "TYPE": "type", "HANDLERS": "handlers", "PUBLIC": "public"}, name="name",
            rows=rows, nothing="There are none.",
        ),
        format,
    )  # fmt: skip


async def services_of(asked: Source) -> list[Row]:
    """The classes that run; of a file those of which it holds something."""
    if isinstance(asked, RunningServer):
        return [
            {
                "name": one["name"],
                "type": one["ty"],
                "handlers": [handler["name"] for handler in one["handlers"]],
                "public": one["public"],
                "revision": one["revision"],
                "deployment_id": one["deployment_id"],
            }
            for one in (await asked.get("/services"))["services"]
        ]
    talk("Of a file, these are the services of which it holds something, with the handlers that were called.")
    called = await asked.rows(
        "select distinct target_service_name, target_service_ty, target_handler_name from sys_invocation "
        "order by target_service_name, target_handler_name"
    )
    kept = await asked.rows("select distinct service_name from state order by service_name")
    found: dict[str, dict[str, Any]] = {}
    for row in called:
        kind = _TYPES.get(row["target_service_ty"], row["target_service_ty"])
        one = found.setdefault(row["target_service_name"], {"name": row["target_service_name"], "type": kind})
        one.setdefault("handlers", []).append(row["target_handler_name"])
    for row in kept:
        name = row["service_name"]
        found.setdefault(name, {"name": name, "type": "VirtualObject", "handlers": list[str]()})
    return [found[name] for name in sorted(found)]


def describe_service(name: str, whom: Whom, format: Format) -> None:
    """One class with its handlers."""
    asyncio.run(_describe(name, whom, format))


async def _describe(name: str, whom: Whom, format: Format) -> None:
    async with source(whom) as asked:
        known = {one["name"]: one for one in await services_of(asked)}
        if name not in known:
            raise CommandError(f"There is no service '{name}' in {asked.where}. There are {', '.join(known)}.")
        told: Any = known[name]
        if isinstance(asked, RunningServer):
            told = await asked.get(f"/services/{quote(name, safe='')}")
    match format:
        case Format.TABLE:
            _print_service(told)
        case Format.NAME:
            typer.echo(name)
        case _:
            print_data(told, format)


def _print_service(told: Any) -> None:
    for field, value in told.items():
        if field != "handlers" and value is not None and not isinstance(value, dict | list):
            typer.echo(f"{field.replace('_', ' ')}: {in_a_cell(value)}")
    typer.echo()
    handlers = [{"name": one} if isinstance(one, str) else one for one in told["handlers"]]
    cells = [
        [in_a_cell(one.get(field)) for field in ("name", "ty", "public", "input_description", "output_description")]
        for one in handlers
    ]
    print_table(["HANDLER", "TYPE", "PUBLIC", "TAKES", "GIVES"], cells)


def show_status(name: str | None, whom: Whom, format: Format, *, every_seconds: float | None) -> None:
    """How many invocations of each class stand where, and since when the oldest does."""

    async def work() -> None:
        async with source(whom) as asked:

            async def show() -> None:
                print_listing(await status_of(asked, name), format)

            await repeated(show, every_seconds)

    run_repeatedly(work, every_seconds)


async def status_of(asked: Source, name: str | None) -> Listing:
    """How many invocations of each class, or of one, stand where."""
    only = "" if name is None else f" where target_service_name = {text(name)}"
    counts = await asked.rows(
        "select target_service_name, status, count(*) as n, min(created_at) as oldest "
        f"from sys_invocation{only} group by target_service_name, status"
    )
    known = [one["name"] for one in await services_of(asked)] if isinstance(asked, RunningServer) else []
    if name is not None and name not in [*known, *(row["target_service_name"] for row in counts)]:
        raise CommandError(f"There is no service '{name}' in {asked.where}.")
    rows: dict[str, dict[str, Any]] = {
        one: {"name": one} | dict.fromkeys(_STATUSES, 0) for one in ([name] if name is not None else known)
    }
    for row in counts:
        one = rows.setdefault(
            row["target_service_name"], {"name": row["target_service_name"]} | dict.fromkeys(_STATUSES, 0)
        )
        one[row["status"]] = row["n"]
        if row["status"] != "completed":
            one["oldest"] = min(row["oldest"], one.get("oldest") or row["oldest"])
    return Listing(
        fields=("name", *_STATUSES, "oldest"),
        columns={"NAME": "name"} | {one.upper(): one for one in _STATUSES} | {"OLDEST": "oldest"},
        name="name", rows=[rows[one] for one in sorted(rows)], nothing="There is nothing under way.",
    )  # fmt: skip


def list_deployments(whom: Whom, format: Format) -> None:
    """The program that runs. There is one: code is replaced by a restart."""
    asyncio.run(_deployments(whom, format))


async def _deployments(whom: Whom, format: Format) -> None:
    async with source(whom) as asked:
        found: list[Any] = []
        if isinstance(asked, RunningServer):
            found = (await asked.get("/deployments"))["deployments"]
        else:
            talk("A file has no deployment: no program runs.")
    rows = [{**one, "services": [service["name"] for service in one["services"]]} for one in found]
    print_listing(
        Listing(
            fields=("id", "uri", "created_at", "services"),
            columns={"ID": "id", "ADDRESS": "uri", "CREATED": "created_at", "SERVICES": "services"},
            name="id", rows=rows, nothing="",
        ),
        format,
    )  # fmt: skip


def ask_in_sql(query: str, whom: Whom, format: Format, *, every_seconds: float | None) -> None:
    """The answer to a query."""

    async def work() -> None:
        async with source(whom) as asked:

            async def show() -> None:
                rows = await asked.rows(query)
                columns = list(dict.fromkeys(name for row in rows for name in row))
                shown = {name: name for name in columns}
                first = columns[0] if columns else ""
                listing = Listing(fields=columns, columns=shown, name=first, rows=rows, nothing="No rows.")
                print_listing(listing, format)

            await repeated(show, every_seconds)

    run_repeatedly(work, every_seconds)


def tell_why(id: str, whom: Whom, format: Format) -> None:
    """What an invocation waits for, as a tree."""
    asyncio.run(_why(id, whom, format))


async def _why(id: str, whom: Whom, format: Format) -> None:
    async with source(whom) as asked:
        data, told = await asked.why(id)
    match format:
        case Format.TABLE:
            typer.echo(told)
        case Format.NAME:
            typer.echo(data["id"])
        case _:
            print_data(data, format)
