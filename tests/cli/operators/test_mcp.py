"""An assistant gets all that it needs to find out why over the Model Context Protocol, and no way to act unasked."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from durably.cli.failures import CommandError
from durably.cli.operators.mcp_server import mcp_server
from durably.cli.operators.sources import Whom
from tests.cli.operators.conftest import Site
from tests.processes import ROOT, environment_with

READING = {
    "list_services", "service_status", "list_invocations", "describe_invocation", "why", "journal", "list_objects",
    "get_state", "query",
}  # fmt: skip
ACTING = {f"{act}_invocations" for act in ("resume", "restart", "pause", "cancel", "kill")}


@asynccontextmanager
async def assistant(whom: Whom, *, may_change: bool = False) -> AsyncGenerator[Client]:
    async with Client(mcp_server(whom, may_change=may_change)) as client:
        yield client


async def answer(client: Client, tool: str, **arguments: Any) -> Any:
    told = await client.call_tool(tool, arguments)
    assert not told.is_error, told.content
    return told.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    told = await client.call_tool(tool, arguments)
    assert told.is_error
    return str(told.content)


@pytest.mark.parametrize("by", ["admin", "store"])
async def test_an_assistant_finds_out_why_an_invocation_is_stuck(site: Site, by: str) -> None:
    key = f"mcp-{by}"
    first = site.send(f"/Counter/{key}/wait")
    second = site.send(f"/Counter/{key}/add", 3)
    site.until(first, "suspended")
    async with assistant(Whom(admin=site.admin) if by == "admin" else Whom(store=site.store)) as client:
        listed = await answer(client, "list_invocations", what=[f"Counter/{key}"])
        assert {one["id"]: one["status"] for one in listed["invocations"]} == {first: "suspended", second: "pending"}
        why = await answer(client, "why", id=second)
        assert first in why["in_words"]
        described = await answer(client, "describe_invocation", id=first)
        assert (described["target"], described["waits"][0]["kind"]) == (f"Counter/{key}/wait", "timer")
        assert (await answer(client, "journal", id=first))["entries"] == described["journal"]
        assert "Counter" in {one["name"] for one in (await answer(client, "list_services"))["services"]}
        assert (await answer(client, "service_status", service="Counter"))["services"][0]["suspended"] >= 1
        rows = await answer(
            client, "query", sql=f"select count(*) as n from sys_invocation where target_service_key = '{key}'"
        )
        assert rows["rows"][0]["n"] >= 2
        assert "inv_1nowhere" in await refusal(client, "why", id="inv_1nowhere")
        assert "nly queries are answered" in await refusal(client, "query", sql="delete from state")
        site.post(f"/Counter/{key}-state/add", 5)
        assert f"{key}-state" in (await answer(client, "list_objects", service="Counter"))["keys"]
        assert await answer(client, "get_state", object=f"Counter/{key}-state") == {"fields": {"count": 5}}


async def test_it_changes_something_only_where_that_is_allowed_and_by_id(site: Site) -> None:
    id = site.send("/Counter/mcp-acts/wait")
    site.until(id, "suspended")
    async with assistant(Whom(admin=site.admin)) as client:
        tools = (await client.list_tools()).tools
        assert {one.name for one in tools} == READING
        assert all(one.annotations is not None and one.annotations.read_only_hint for one in tools)
        assert "Unknown tool" in await refusal(client, "cancel_invocations", ids=[id])
    async with assistant(Whom(admin=site.admin), may_change=True) as client:
        tools = (await client.list_tools()).tools
        assert {one.name for one in tools} == READING | ACTING
        writing = [one for one in tools if one.name in ACTING]
        assert all(one.annotations is not None and one.annotations.read_only_hint is False for one in writing)
        assert "is no id" in await refusal(client, "kill_invocations", ids=["Counter"])
        assert (await answer(client, "pause_invocations", ids=[id]))["done"][0]["id"] == id
        site.until(id, "paused")
        done = await answer(client, "kill_invocations", ids=[id, "inv_1nowhere"])
        assert ([one["id"] for one in done["done"]], [one["id"] for one in done["not_done"]]) == (
            [id],
            ["inv_1nowhere"],
        )
    with pytest.raises(CommandError, match="leave out --store, or --allow-changes"):
        mcp_server(Whom(store=site.store), may_change=True)


async def test_where_no_server_answers_the_assistant_is_told_so_in_a_sentence() -> None:
    async with assistant(Whom(admin="http://127.0.0.1:1")) as client:
        assert "No server answers at http://127.0.0.1:1" in await refusal(client, "list_services")


@pytest.mark.slow
async def test_the_command_speaks_the_protocol_on_its_standard_input_and_output(site: Site) -> None:
    command = ["-m", "durably.cli", "mcp", "--admin", site.admin]
    started = StdioServerParameters(command=sys.executable, args=command, env=environment_with({}), cwd=ROOT)
    async with Client(started) as client:
        assert client.server_info is not None
        assert client.server_info.name == "durably"
        assert (await answer(client, "list_services"))["services"]
