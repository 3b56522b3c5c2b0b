"""docs/compared-with-restate.md tells the truth: its code runs, what it names exists, and it leaves nothing out."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import durably
from durably import Context, Service, TerminalError, handler
from durably.actors.bound_handlers import BoundHandler, DelayedHandler
from durably.actors.handlers import Handler
from durably.actors.run import Run
from durably.actors.transport import Invocation
from durably.testing import Harness
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "compared-with-restate.md").read_text("utf-8")
RESIDENT = pytest.mark.parametrize("nothing_resident", [False, True], ids=["resident", "nothing-resident"])

GO_SDK = """
    ErrKeyNotFound WithBinary WithJSON WithProto WithProtoJSON GetAs IsTerminalError NewObject NewObjectHandler
    NewObjectSharedHandler NewService NewServiceHandler RunAs TerminalError WithCodec WithErrorCode WithHeaders
    WithPayloadCodec After Done Awakeable Id Result CallClient RequestFuture Request Send CallOption Code ErrorCode
    Context.Rand Context.Sleep Context.After Context.Service Context.Object Context.Run Context.Awakeable
    ResolveAwakeable RejectAwakeable Context.Select Handler InputPayload OutputPayload HandlerType KeyValueReader Get
    Keys Key KeyValueWriter Set Clear ClearAll ObjectContext ObjectHandler ObjectHandlerFn ObjectSharedContext
    ObjectSharedHandlerFn ID Headers AttemptHeaders Body ResponseFuture Response RunContext Log Context.Log
    Context.Request Selectable Selector Remaining Select ServiceDefinition Name Type Handlers Reflect
    ServiceDefinitionOption ServiceHandler Call ServiceHandlerFn TypedAwakeable AwakeableAs TypedCallClient CallAs
    NewTypedCallClient TypedResponseFuture Void WithLogger protoc-gen-go-restate wire context.Context
"""
"""Everything that the index of the Go SDK's documentation lists, and the methods of its interfaces."""

REFERENCE = """
    name= description= metadata= accept= content_type= input_serde= output_serde= kind= restate.app identity_keys
    protocol= restate.connect request() attempt_finished_event run_typed RunOptions asTerminalError PauseError sleep
    time() random() uuid() service_call object_call workflow_call invocation_id() cancel_invocation() service_send
    object_send workflow_send generic_call generic_send scope limit_key awakeable resolve_awakeable reject_awakeable
    signal resolve_signal reject_signal cancel_invocation(id) attach_invocation(id) get set clear clear_all state_keys
    key state_preload promise(name) current_context() gather select race any allSettled as_completed wait_completed
    orTimeout map RetryableError( explicitCancellation onJournalMismatchErrors invocation_context_managers getLogger
    RestateLoggingFilter Tracing Serde PydanticJsonSerde JournalValueCodec OpenAPI create_test_harness always_replay
    disable_retries env.stateOf adk Turnstile explicit_recovery Kafka inactivity_timeout abort_timeout
    journal_retention idempotency_retention workflow_retention ingress_private InvocationRetryPolicy
    enable_lazy_state is_internal_exception isSuspendedError DefaultSerde setContentTypeIfEmpty __close__ HttpError
    x/mocks throttling
"""


async def send_letter(id: str) -> None: ...


def throw_dice() -> int:
    return 4


def refuse() -> None:
    raise ConnectionError("not now")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the code of the page defines."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    given = {"send_letter": send_letter, "throw_dice": throw_dice, "refuse": refuse, "__name__": "compared"}
    exec(compile("\n".join(["import asyncio", "from durably import *", *blocks]), "page", "exec", 0, True), given)
    return given


def actors_of(page: dict[str, Any]) -> list[Any]:
    return [one for one in page.values() if isinstance(one, type) and one.__module__ == "compared"]


def harness(page: dict[str, Any], nothing_resident: bool) -> Harness:
    return Harness(*actors_of(page), nothing_resident=nothing_resident)


def test_the_page_defines_what_is_tried_here(page: dict[str, Any]) -> None:
    assert [one.__name__ for one in actors_of(page)] == ["Greeter", "Party", "Clerk", "Box", "Everything"]


@RESIDENT
async def test_calls_and_messages(page: dict[str, Any], nothing_resident: bool) -> None:
    async with harness(page, nothing_resident) as app:
        greetings = await app.service(page["Party"]).greetings("Mary")
        assert greetings == [f"Mary greets {guest}" for guest in ("Ann", "Bob", "Dan")]
        await app.crash()
        assert [one async for one in app.invocations(target="Greeter/Mary", status=durably.InvocationStatus.SCHEDULED)]
        await app.advance(minutes=15)
        assert not [one async for one in app.invocations(target="Greeter", status=durably.InvocationStatus.SCHEDULED)]


@RESIDENT
async def test_waiting(page: dict[str, Any], nothing_resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[str] = []

    async def keep(id: str) -> None:
        ids.append(id)

    monkeypatch.setitem(page, "send_letter", keep)
    async with harness(page, nothing_resident) as app:
        clerk = app.service(page["Clerk"])
        deciding = [await clerk.decide.send() for _ in range(3)]
        await app.settle()
        await app.crash()
        assert len(ids) == 3
        await clerk.approve(ids[0], "yes")
        await clerk.approve(ids[1], "")
        await app.advance(60)
        outcomes = await asyncio.gather(*(one.result() for one in deciding), return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, TerminalError)]
        assert [(error.code, error.message) for error in refused] == [(404, "no answer")]
        assert sorted(one for one in outcomes if isinstance(one, str)) == ["too late", "yes"]
        assert sorted(await clerk.collect(["a", "b"])) == ["a greets Eve", "b greets Eve"]


@RESIDENT
async def test_side_effects_state_and_errors(page: dict[str, Any], nothing_resident: bool) -> None:
    async with harness(page, nothing_resident) as app:
        box = app.object(page["Box"], "red")
        assert await box.put("a", "1") == ["a"]
        assert await box.get("a") == "1"
        with pytest.raises(TerminalError, match="red has no b") as missing:
            await box.get("b")
        assert missing.value.code == 404
        assert await box.empty() == 4
        assert app.snapshots[page["Box"], "red"].opened == 0
        assert await box.put("c", "2") == ["c"]


@RESIDENT
async def test_the_context(page: dict[str, Any], nothing_resident: bool) -> None:
    async with harness(page, nothing_resident) as app:
        workflow = app.workflow(page["Everything"], "w")
        running = await workflow.run.send("Mary")
        await app.settle()
        await app.crash()
        assert await workflow.pay("receipt", running.id) == "receipt"
        assert await running.result() == "Mary greets Fay, now, receipt"


async def test_what_a_handler_does_while_its_attempt_is_put_away_has_no_effect() -> None:
    class Stubborn(Service):
        @handler
        async def catch_all(self, ctx: Context) -> str:
            try:
                await ctx.sleep(1)
            except:  # noqa: E722
                await ctx.sleep(1_000)
                return "caught"
            return "slept"

    async with Harness(Stubborn, nothing_resident=True) as app:
        sent = await app.service(Stubborn).catch_all.send()
        await app.advance(1)
        assert await sent.result() == "slept"


async def test_void_is_no_body_and_no_content_type() -> None:
    class Void(Service):
        @handler
        async def nothing(self, ctx: Context) -> None: ...

    async with durably.Runtime("memory:", [Void]) as runtime:
        transport = httpx.ASGITransport(runtime.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
            refused, answered = await client.post("/Void/nothing", content=b"1"), await client.post("/Void/nothing")
            scoped = await client.post("/restate/scope/s/call/Void/nothing")
    assert (refused.status_code, scoped.status_code) == (400, 400)
    assert (answered.status_code, answered.content, answered.headers.get("content-type")) == (200, b"", None)


# ---------------------------------------------------------------- the tables
def rows() -> Iterator[tuple[str, str]]:
    """Each row of a table: what is there, and what is here."""
    for line in PAGE.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            there, here = line.strip("| ").split(" | ", 1)
            yield there, here


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_name_of_the_go_sdk_is_in_its_tables() -> None:
    go, _ = PAGE.split("## The reference, row by row")
    named = {name for line in go.splitlines() if line.startswith("| ") for name in spans(line.split(" | ")[0])}
    assert not {name for name in GO_SDK.split() if name not in named}


def test_every_row_of_the_reference_is_in_its_tables() -> None:
    _, reference = PAGE.split("## The reference, row by row")
    there = "\n".join(line.split(" | ")[0] for line in reference.splitlines() if line.startswith("| "))
    assert not {name for name in REFERENCE.split() if name not in there}


def test_what_is_not_there_has_a_reason_or_another_way() -> None:
    assert len(list(rows())) > 100
    for there, here in rows():
        assert there.strip(), here
        assert here.strip(), there
        if re.search("not yet", here, re.IGNORECASE):
            assert re.search(r"[;.] ?[Tt]oday ", here), here
        if re.match(r"No\b(?!t)", here):
            assert here.startswith("No: "), here


CONTEXTS = (durably.Context, durably.WorkflowContext, durably.SharedWorkflowContext, durably.ActionContext)
HANDLER: Any = Handler
BOUND: Any = BoundHandler
DELAYED: Any = DelayedHandler
RECEIVERS: dict[str, tuple[Any, ...]] = {
    "ctx": CONTEXTS,
    "runtime": (durably.Runtime,),
    "invocation": (Invocation,),
    "app": (Harness,),
    "asyncio": (asyncio,),
    "error": (TerminalError,),
}


def expressions() -> Iterator[tuple[str, ast.expr]]:
    """The code in the column of what is here, as far as it is an expression."""
    for _, here in rows():
        for span in spans(here):
            text = span.replace("…", "...")
            text = f"_{text}" if text.startswith(".") else text
            try:
                yield span, ast.parse(text.removeprefix("await ").removeprefix("@"), mode="eval").body
            except SyntaxError:
                continue


def test_what_the_page_names_exists() -> None:
    seen = 0
    for span, expression in expressions():
        for node in ast.walk(expression):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in RECEIVERS:
                owners = RECEIVERS[node.value.id]
                assert any(_has(owner, node.attr) for owner in owners), (span, node.attr)
                seen += 1
            if isinstance(node, ast.Call):
                allowed = _parameters_of(node.func)
                if allowed is not None:
                    assert {one.arg for one in node.keywords} <= allowed, span
                    seen += 1
    assert seen > 100


def _has(owner: Any, name: str) -> bool:
    return (
        hasattr(owner, name) or name in getattr(owner, "__annotations__", {}) or name in getattr(owner, "__slots__", ())
    )


def _parameters_of(function: ast.expr) -> set[str | None] | None:
    """The names of the parameters of what is called; None: it is the reader's own."""
    match function:
        case ast.Name(id=name) if name in ("handler", "shared"):
            called: Any = HANDLER.__init__
        case ast.Name(id=name) if hasattr(durably, name):
            called = getattr(durably, name)
        case ast.Attribute(value=ast.Name(id=receiver), attr=name) if receiver in RECEIVERS:
            called = next(getattr(owner, name) for owner in RECEIVERS[receiver] if hasattr(owner, name))
        case ast.Attribute(value=ast.Attribute(attr="run"), attr="options"):
            called = Run.options
        case ast.Attribute(attr="options"):
            called = BOUND.options
        case ast.Attribute(attr="after"):
            called = BOUND.after
        case ast.Attribute(attr="send") if not isinstance(function.value, ast.Name):
            called = DELAYED.send
        case _:
            return None
    if isinstance(called, property):
        return None
    return set(inspect.signature(called).parameters)
