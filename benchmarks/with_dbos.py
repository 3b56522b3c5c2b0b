"""The same load on DBOS, which keeps its workflows in PostgreSQL, too: `benchmarks.postgres` measures both in turns.

DBOS has no objects that keep state. What is nearest to a call that changes state is a workflow of one step.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks.load_on_store import Figures, Operation, load

DATABASE: Final = "durably_benchmark_dbos"
NAME: Final = "durably-benchmark"
_made: dict[str, Any] = {}


def is_here() -> bool:
    return find_spec("dbos") is not None


def _workflows() -> dict[str, Any]:
    """Made once: DBOS knows them by name for as long as the process lives."""
    if not _made:
        dbos: Any = import_module("dbos").DBOS

        async def add_one(number: int) -> int:
            return number + 1

        step = dbos.step()(add_one)

        async def one_step(number: int) -> int:
            return int(await step(number))

        async def three_steps(number: int) -> int:
            return int(await step(await step(await step(number))))

        _made.update(one=dbos.workflow()(one_step), three=dbos.workflow()(three_steps))
    return _made


async def measure(url: str) -> dict[str, Figures]:
    dbos: Any = import_module("dbos").DBOS
    config = {
        "name": NAME, "system_database_url": _database_url(url), "run_admin_server": False, "log_level": "ERROR",
        "sys_db_pool_size": 20,
    }  # fmt: skip
    dbos(config=config)
    workflows = _workflows()
    dbos.launch()

    one: Operation = workflows["one"]
    three: Operation = workflows["three"]

    try:
        for _ in range(3):
            await three(0)
        return {
            "a call, one caller": await load(one, 1),
            "calls, 64 callers": await load(one, 64),
            "three steps, one caller": await load(three, 1),
            "three steps, 64 callers": await load(three, 64),
        }
    finally:
        dbos.destroy()


def make(url: str) -> None:
    drop(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create database {DATABASE}".encode())


def drop(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"drop database if exists {DATABASE} with (force)".encode())


def _database_url(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{DATABASE}"))
