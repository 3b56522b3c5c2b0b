"""docs/values.md tells the truth: its programs run, the examples of its table hold, its commands are there."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import AsyncIterator, Awaitable
from inspect import isawaitable
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

import durably
from durably import Context, ObjectContext, Service, UnsetStateError, VirtualObject, handler, state
from durably.cli.commands import application
from durably.protobuf import ProtobufSerde
from durably.testing import Harness
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "values.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^    durably (.+)$", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"\| `([^`]+)` \|$", PAGE.partition("## Compared with others")[2], re.MULTILINE)


class Tickets(Service):
    @handler
    async def buy(self, ctx: Context, count: int) -> int:
        raise NAMES["SoldOut"](f"no {count}", seats_left=count - 1)


class Missing(VirtualObject):
    unset: int = state()

    @handler
    async def look(self, ctx: ObjectContext) -> tuple[int | None, int, str]:
        try:
            return ctx.get("a", int), ctx.get("a", int, 0), str(self.unset)
        except UnsetStateError as error:
            return ctx.get("a", int), ctx.get("a", int, 0), type(error).__name__


class Back(Service):
    @handler
    async def seen(self, ctx: Context) -> dict[str, str]:
        return dict(ctx.request.headers)


class Front(Service):
    @handler
    async def ask(self, ctx: Context, headers: dict[str, str]) -> dict[str, str]:
        return await ctx.service(Back).seen.options(headers=headers)()


async def forwarded(headers: dict[str, str] | None = None, **options: Any) -> dict[str, str]:
    async with Harness(Front, Back, **options) as app:
        ask = app.service(Front).ask.options(headers={"authorization": "a", "x-tenant": "b"})
        return await ask(headers or {})


async def error_of(call: Awaitable[object]) -> durably.TerminalError:
    with pytest.raises(durably.TerminalError) as failed:
        await call
    return failed.value


def measure(image: bytes) -> int:
    return len(image)


def send_letter(id: str) -> None:
    LETTERS.append(id)


LETTERS: list[str] = []
NAMES: dict[str, Any] = {
    "__name__": "values_page", "Tickets": Tickets, "Missing": Missing, "actors": [Tickets], "key": bytes(32),
    "error_of": error_of, "forwarded": forwarded, "Timestamp": Timestamp, "ProtobufSerde": ProtobufSerde,
    "measure": measure, "new": bytes(range(32)), "old": bytes(32), "send_letter": send_letter, "store": "memory:",
}  # fmt: skip


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page defines, its programs run one after the other."""
    for number, program in enumerate(PROGRAMS):
        prelude = "from dataclasses import dataclass\nfrom datetime import *\nfrom durably import *\n"
        exec(compile(prelude + program, f"values.md, program {number}", "exec", dont_inherit=True), NAMES)
    NAMES["client"] = NAMES["runtime"]
    return NAMES


async def test_its_programs_run(names: dict[str, Any]) -> None:
    async with Harness(names["Files"], names["Approval"], names["Order"], nothing_resident=True) as app:
        assert await app.object(names["Files"], "a").put(b"\xff\x00") == b"\xff\x00"
        sent = await app.service(names["Approval"]).wait.send()
        await app.settle()
        await sent.signal("terms", {"paid": True}, serde=durably.MsgpackSerde(dict))
        await app.resolve_awakeable(LETTERS[-1], b"\xff", serde=durably.BytesSerde())
        assert await sent.result() == b"\xff"


async def test_the_error_of_the_page_is_caught_with_its_fields_and_stays_terminal(names: dict[str, Any]) -> None:
    class Buyer(Service):
        @handler
        async def buy(self, ctx: Context) -> None:
            await names["pay"](ctx)

    async with Harness(Buyer, Tickets) as app:
        with pytest.raises(names["SoldOut"]) as sold_out:
            await app.service(Buyer).buy()
        assert vars(sold_out.value)["seats_left"] == 1


@pytest.fixture
async def app(names: dict[str, Any]) -> AsyncIterator[Harness]:
    classes = [names[name] for name in ("Files", "Gallery", "Approval", "Order")]
    async with Harness(*classes, Tickets, Missing, nothing_resident=True) as app:
        yield app


@pytest.mark.parametrize("example", EXAMPLES)
async def test_each_example_of_the_comparison_holds(app: Harness, names: dict[str, Any], example: str) -> None:
    async def post(path: str, body: bytes, content_type: str = "application/json") -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi()), base_url="http://durably") as client:
            return await client.post(path, content=body, headers={"content-type": content_type})

    held = eval(
        compile(example, "an example", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names | {"app": app, "post": post}
    )
    assert (await held if isawaitable(held) else held) is True


def test_every_row_of_the_comparison_has_an_example() -> None:
    table = PAGE.partition("## Compared with others")[2].strip().splitlines()
    assert len(EXAMPLES) == sum(line.startswith("| ") for line in table) - 2


async def test_its_commands_are_there(names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "app.py").write_text("from durably.codecs import *\ncodec = AesGcmCodec(bytes(32))\n")

    class Box(VirtualObject):
        @handler
        async def hold(self, ctx: ObjectContext, what: str) -> None:
            ctx.set("held", what)

    async with durably.Runtime("sqlite:///app.db", [Box]) as app:
        await app.object(Box, "a").hold("secret")
    assert COMMANDS
    for command in COMMANDS:
        done = CliRunner().invoke(application, command.split())
        assert done.exit_code == 0, done.output
    sys.modules.pop("app", None)
