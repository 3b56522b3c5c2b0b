"""State of an older version is migrated on a cluster, too, and newer state is touched by no older code."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from durably import TerminalError
from durably.restate import Client
from tests.processes import eventually, free_port
from tests.restate.cluster import Cluster, Deployed

pytestmark = pytest.mark.slow

FIRST = """
import os
import durably.restate
from durably import ObjectContext, SharedContext, VirtualObject, handler, migrate, shared, state

class Person(VirtualObject, name="NAME"):
    name: str = state(default="")

    @handler
    async def put(self, ctx: ObjectContext, name: str) -> None:
        self.name = name
"""
SECOND = """
import os
import durably.restate
from durably import ObjectContext, SharedContext, TerminalError, VirtualObject, handler, migrate, shared, state

class Person(VirtualObject, name="NAME", state_version=3):
    first: str = state(default="")
    last: str = state(default="")

    @migrate(from_version=1)
    @staticmethod
    def split(old):
        first, _, last = old["name"].partition(" ")
        return {"first": first, "surname": last}

    @migrate(from_version=2)
    @staticmethod
    def rename(old):
        return {"first": old["first"], "last": old["surname"]}

    @handler
    async def put(self, ctx: ObjectContext, name: str) -> None:
        self.first, _, self.last = name.partition(" ")

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        await ctx.sleep(0.01)
        return [self.first, self.last, *ctx.keys()]

    @handler
    async def greet(self, ctx: ObjectContext, seconds: float) -> str:
        await ctx.sleep(seconds)
        self.last = self.last.upper()
        await ctx.sleep(0.01)
        return f"{self.first} {self.last} {','.join(ctx.keys())}"

    @handler(atomic=True)
    async def fail(self, ctx: ObjectContext) -> None:
        self.last = "nothing"
        await ctx.sleep(0.01)
        raise TerminalError("no")

    @handler
    async def forget(self, ctx: ObjectContext) -> list[str]:
        ctx.clear_all()
        return list(ctx.keys())
"""
APP = """
app = durably.restate.app(Person, engine=os.environ["ENGINE"], suspend_after=0)
"""


@pytest.mark.parametrize("engine", ["public", "vm"])
async def test_state_is_migrated_when_an_object_is_next_used_and_kills_change_nothing(
    cluster: Cluster, tmp_path: Path, engine: str
) -> None:
    name = f"Person{engine}"

    def write(code: str) -> None:
        (tmp_path / "people.py").write_text(code.replace("NAME", name) + APP)

    environment, port = {"ENGINE": engine}, free_port()
    write(FIRST)
    async with AsyncExitStack() as stack:
        first = Deployed(cluster, "people:app", cwd=tmp_path, environment=environment)
        stack.callback(first.end)
        client = await stack.enter_async_context(Client(cluster.url))

        async def ask(key: str, handler: str, argument: object = None) -> object:
            body = b"" if argument is None else json.dumps(argument).encode()
            return json.loads(await client.call(name, handler, body, key=key) or "null")

        for key in "abcd":
            await ask(key, "put", "Ann Lee")
        write(SECOND)
        second = Deployed(cluster, "people:app", cwd=tmp_path, environment=environment, port=port)
        try:
            assert await ask("a", "look") == ["Ann", "Lee", "first", "last"]
            sent = await client.send(name, "greet", key="a", argument=1)
            sleeps = f"select id from sys_journal where id = '{sent.id}' and entry_type like '%Sleep%'"
            assert eventually(lambda: len(cluster.query(sleeps)) > 0)
            second.kill()
            second = Deployed(
                cluster, "people:app", cwd=tmp_path, environment=environment, port=port, registers=False
            )  # fmt: skip
            assert json.loads(await sent.result()) == "Ann LEE first,last"
            assert await ask("a", "greet", 0.01) == "Ann LEE first,last", "it is migrated once"
            with pytest.raises(TerminalError, match="no"):
                await ask("b", "fail")
            assert await ask("b", "greet", 0.01) == "Ann LEE first,last"
            await ask("new", "put", "Bo Ek")
            assert await ask("new", "greet", 0.01) == "Bo EK first,last"
            assert await ask("c", "forget") == []
            await ask("c", "put", "Cy Orr")
            assert await ask("c", "greet", 0.01) == "Cy ORR first,last"
            first.end()
            write(FIRST)
            old = Deployed(cluster, "people:app", cwd=tmp_path, environment=environment)
            try:
                await ask("d", "put", "Di Fry")  # What newer code has not touched is as the old code left it.
                late = await client.send(name, "put", key="new", argument="x")
                failure = f"select last_failure from sys_invocation where id = '{late.id}'"
                assert eventually(
                    lambda: "has version 3, and this code knows 1" in str(cluster.query(failure)[0].get("last_failure"))
                )
                cluster.ask("PATCH", f"/invocations/{late.id}/kill")
            finally:
                old.end()
        finally:
            second.end()
