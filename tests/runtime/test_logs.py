"""Logs that a person can read, with structlog, with the standard library, and with neither configured."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import structlog
import structlog.testing

from durably import (
    Context,
    InvalidArgumentError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    Service,
    VirtualObject,
    action_context,
    handler,
    state,
)
from durably.cli import logs
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation import logs as observation_logs
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.observation.observer import Observer, Observers
from durably.runtime.observation.standard_library import LOGGER_NAME, LastResortHandler
from durably.testing import Harness
from tests.semantics.support import World, begin, turns, wait_a_little

FRAME_OF_OURS = re.compile(r'File "[^"]*/durably/(actors|runtime|storage)/')
OWN_LINES = re.compile(
    r"\nTraceback \(most recent call last\):\n.*KeyError: 'nothing'\n.*direct cause.*\n"
    r"  File \"[^\n]*test_logs\.py\", line \d+, in stumble\n    raise ValueError.*\nValueError: a bug\n",
    re.DOTALL,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stumble() -> None:
    nothing: dict[str, int] = {}
    try:
        nothing["nothing"]
    except KeyError as error:
        raise ValueError("a bug") from error


class Shop(Service):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def buy(self, ctx: Context, amount: int = 1) -> None:
        stumble()

    @handler
    async def charge(self, ctx: Context) -> str:
        return await ctx.run.options(retry=RetryPolicy(max_attempts=3, initial=1))("charge", self._charge)

    async def _charge(self) -> str:
        raise ConnectionError("no answer")

    @handler
    async def wait(self, ctx: Context) -> str:
        return await ctx.run("charge", self.world.act, "charge")


@pytest.fixture
def world() -> World:
    return World()


async def pause(world: World) -> PausedInvocationError:
    async with Harness(Shop, dependencies={World: world}) as app:
        with pytest.raises(PausedInvocationError) as paused:
            await app.service(Shop).buy()
    return paused.value


@contextmanager
def host(stderr: io.StringIO, *handlers: logging.Handler) -> Generator[io.StringIO]:
    """What is written to stderr in a host that has configured these handlers, instead of those of pytest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setattr(logging.getLogger(), "handlers", list(handlers))
        yield stderr


async def test_without_any_configuration_a_line_has_its_time_and_level_and_tracebacks_their_own_lines(
    world: World,
) -> None:
    with host(Terminal()) as stderr:
        await pause(world)
    said = stderr.getvalue()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[error  \] paused invocation=", said)
    assert OWN_LINES.search(said)
    assert said.count("paused") == 1
    assert not FRAME_OF_OURS.search(said)


async def test_where_nobody_looks_a_traceback_is_one_field_of_its_line(world: World) -> None:
    with host(io.StringIO()) as piped:
        await pause(world)
    (line,) = piped.getvalue().splitlines()
    assert "ValueError: a bug" in json.loads(line[line.index("traceback=") + len("traceback=") :])


async def test_a_host_with_handlers_of_its_own_gets_each_event_once(world: World) -> None:
    own = io.StringIO()
    with host(Terminal(), logging.StreamHandler(own)) as stderr:
        await pause(world)
    assert stderr.getvalue() == ""
    assert own.getvalue().startswith("paused invocation=")
    assert own.getvalue().count("paused") == 1
    assert OWN_LINES.search(own.getvalue())
    assert [type(one) for one in logging.getLogger(LOGGER_NAME).handlers] == [LastResortHandler]


async def test_the_console_of_structlog_shows_a_traceback_on_lines_of_its_own(world: World) -> None:
    terminal = Terminal()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
        logger_factory=structlog.WriteLoggerFactory(terminal),
    )
    await pause(world)
    assert OWN_LINES.search(terminal.getvalue())


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_served_runtime_writes_one_line_for_an_event_where_nobody_looks(world: World, as_json: bool) -> None:
    with host(io.StringIO()) as piped:
        logs.configure_logs(logs.LogLevel.WARNING, as_json=as_json)
        await pause(world)
    (line,) = piped.getvalue().splitlines()
    found = json.loads(line)["traceback"] if as_json else json.loads(line[line.index("traceback=") + 10 :])
    assert OWN_LINES.search("\n" + found + "\n")


async def test_a_failed_action_is_told_with_its_place_and_its_traceback_once(
    caplog: pytest.LogCaptureFixture, world: World
) -> None:
    async with Harness(Shop, dependencies={World: world}) as app:
        call = begin(app.service(Shop).charge())
        await app.advance(10)
        await asyncio.wait([call])
        assert call.exception() is not None
    told = [record for record in caplog.records if "an action failed" in record.getMessage()]
    assert len(told) == 2
    for record in told:
        assert re.search(r"at='[^']*test_logs\.py:\d+ \(in _charge\)'", record.getMessage())
    assert ["ConnectionError: no answer" in (record.exc_text or "") for record in told] == [True, False]


class Dialler(Service):
    @handler
    async def dial(self, ctx: Context) -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    @handler
    async def look_at_the_clock(self, ctx: Context) -> None:
        time.time()

    @handler
    async def parse(self, ctx: Context) -> None:
        json.loads("{")


@pytest.mark.parametrize("mistake", ["dial", "look_at_the_clock", "parse"])
async def test_the_place_of_a_mistake_is_the_users_line_and_not_that_of_the_library_it_called(
    mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Harness(Dialler) as app:
        with pytest.raises(PausedInvocationError):
            await getattr(app.service(Dialler), mistake)()
    (paused,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("paused ")]
    assert re.search(rf"at='[^']*test_logs\.py:\d+ \(in {mistake}\)'", paused), paused


async def test_outside_callers_see_their_own_code_and_no_way_through_the_machine(world: World) -> None:
    paused = await pause(world)
    assert paused.__cause__ is not None
    told = "".join(traceback.format_exception(paused.__cause__))
    assert OWN_LINES.search("\n" + told)
    assert not FRAME_OF_OURS.search(told)
    async with Harness(Shop, dependencies={World: world}) as app:
        with pytest.raises(InvalidArgumentError) as refused:
            await app.call("Shop", "buy", b'"one"')
    assert refused.value.__cause__ is None


async def test_a_stop_says_what_it_waits_for_and_a_second_interruption_ends_that(
    caplog: pytest.LogCaptureFixture, world: World
) -> None:
    app = Harness(Shop, dependencies={World: world})
    await app.__aenter__()
    call = begin(app.service(Shop).wait())
    await turns()

    async def leave() -> None:
        await Runtime.__aexit__(app, KeyboardInterrupt, KeyboardInterrupt(), None)

    stopping = asyncio.create_task(leave())
    await turns()
    assert "waits for 1 action 'charge' (Shop/wait); Ctrl-C again stops now" in caplog.text
    assert "up_to_seconds=30" in caplog.text
    stopping.cancel()
    await turns()
    assert not stopping.done(), "the first cancellation leaves a runtime that has stopped"
    stopping.cancel()
    await turns()
    assert "stops now" in caplog.text
    await wait_a_little(app, 2)
    await asyncio.wait([stopping, call])
    assert stopping.cancelled()
    assert "goes on at the next start" in caplog.text
    call.exception()


async def test_a_stop_that_nobody_interrupts_speaks_of_no_key(caplog: pytest.LogCaptureFixture, world: World) -> None:
    async with Harness(Shop, dependencies={World: world}) as app:
        call = begin(app.service(Shop).wait())
        await turns()
        stopping = begin(Runtime.__aexit__(app, None, None, None))
        await turns()
        world.end("charge")
        await stopping
        await call
    assert "waits for 1 action 'charge' (Shop/wait) up_to_seconds=30" in caplog.text


async def test_a_traceback_is_logged_once_however_often_the_same_error_comes(caplog: pytest.LogCaptureFixture) -> None:
    causes = ["the first", "the first", "the first", "another", "another"]

    class Flaky(Service):
        @handler
        async def act(self, ctx: Context) -> None:
            raise ConnectionError(causes.pop(0))

    async with Harness(Flaky, retry=RetryPolicy(max_attempts=5, initial=1)) as app:
        sent = await app.service(Flaky).act.send()
        asking = begin(sent.result())
        await app.advance(minutes=1)
        with pytest.raises(PausedInvocationError):
            await asking
        lines = [record.getMessage() for record in caplog.records if "ConnectionError" in record.getMessage()]
        assert [line.startswith("paused") for line in lines] == [False, False, False, False, True]
        assert all("error='ConnectionError: " in line for line in lines)
        traces = [str(record.exc_text) for record in caplog.records if record.exc_text]
    assert len(traces) == 2
    assert "the first" in traces[0]
    assert "another" in traces[1]


class Teller(Service):
    @handler
    async def tell(self, ctx: Context, text: str) -> None:
        ctx.log.info(text, to="all")
        await ctx.run("whisper", self._whisper)

    async def _whisper(self) -> None:
        action_context().log.warning("psst")


async def test_a_runtime_writes_to_the_logger_that_it_is_given(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shop.durably"):
        async with Runtime("memory:", [Teller], logger=logging.getLogger("shop.durably")) as runtime:
            await runtime.service(Teller).tell("hello")
    assert {record.name for record in caplog.records} == {"shop.durably"}
    said = [record.getMessage().partition(" ")[0] for record in caplog.records]
    assert said == ["runtime", "hello", "psst", "runtime"]


async def test_a_logger_of_structlog_keeps_what_is_bound_to_it(caplog: pytest.LogCaptureFixture) -> None:
    lines = structlog.testing.CapturingLogger()
    without_debug = structlog.make_filtering_bound_logger(logging.INFO)
    logger = structlog.wrap_logger(lines, processors=[], wrapper_class=without_debug).bind(app="shop")
    async with Runtime("memory:", [Teller], logger=logger) as runtime:
        await runtime.service(Teller).tell("hello")
    assert [call.kwargs["event"] for call in lines.calls][1:3] == ["hello", "psst"]
    assert {call.kwargs["app"] for call in lines.calls} == {"shop"}
    assert lines.calls[1].kwargs["to"] == "all"
    assert caplog.records == []


@pytest.mark.parametrize("logger", ["shop", print, logging, structlog.BoundLogger])
def test_what_is_no_logger_is_refused(logger: object) -> None:
    with pytest.raises(TypeError, match=r"getLogger\('shop'\)"):
        Runtime("memory:", [Teller], logger=logger)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Tickets(VirtualObject):
    taken: bool = state(default=False)

    @handler
    async def reserve(self, ctx: ObjectContext) -> bool:
        self.taken = True
        return True

    @handler
    async def release(self, ctx: ObjectContext) -> None:
        self.taken = False


class Cart(VirtualObject):
    failures = 1

    @handler
    async def add(self, ctx: ObjectContext, seat: str) -> bool:
        reserved = await ctx.object(Tickets, seat).reserve()
        if Cart.failures:
            Cart.failures -= 1
            raise ValueError("a bug")
        await ctx.object(Tickets, seat).release.send()
        return reserved


async def test_at_level_debug_the_machine_tells_what_an_invocation_goes_through(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cart, "failures", 1)
    logger = logging.getLogger("tour")
    policy = RetryPolicy(initial=0.001)
    with caplog.at_level(logging.DEBUG, "tour"):
        async with Runtime("memory:", [Cart, Tickets], logger=logger, suspend_after=0, retry=policy) as runtime:
            await runtime.object(Cart, "mary").add("2B")
    lines = [(record.getMessage().partition(" invocation=")[0], vars(record)["durably"]) for record in caplog.records]
    ours = [(event, fields) for event, fields in lines if fields.get("object") == "Cart/mary"]
    assert [event for event, _ in ours] == [
        "invoked", "command journaled", "suspended",
        "invoked", "resumed", "an attempt failed and will be tried again",
        "invoked", "resumed", "command journaled", "completed",
    ]  # fmt: skip
    told = [fields for _, fields in ours]
    assert [one["command"] for one in told if "command" in one] == [
        "call Tickets/2B/reserve",
        "send Tickets/2B/release",
    ]
    assert [one["replayed_steps"] for one in told if "replayed_steps" in one] == [1, 1]
    assert [one["delay_seconds"] for one in told if "delay_seconds" in one] == [0.001]
    assert [one["attempt"] for one in told if "attempt" in one] == [1, 1, 2]
    assert len({one["invocation"] for one in told}) == 1


def test_no_line_tells_an_operator_to_write_python() -> None:
    """Operators have the command, and who wrote the program has its documentation."""
    tree = ast.parse(Path(observation_logs.__file__).read_text("utf-8"))
    texts = [one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    assert any("`durably invocations resume ID`" in text for text in texts)
    assert [text for text in texts if re.search(r"\b[Rr]untime\.\w+", text)] == []


async def test_without_level_debug_no_event_of_every_invocation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detailed(Observer):
        detailed = True

    lines: list[str] = []
    quiet = RuntimeLogger(logging.getLogger("tour.quiet"))

    def invoked(_: RuntimeLogger, invocation: InvocationRun) -> None:
        lines.append(f"{invocation}")

    monkeypatch.setattr(RuntimeLogger, "invoked", invoked)
    assert not Observers([quiet]).detailed
    both = Observers([quiet, Detailed()])  # Somebody else wants to hear of everything.
    assert both.detailed
    both.invoked(cast("InvocationRun", None))
    assert lines == []


async def test_a_pause_by_hand_is_news_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Harness(LogsClerk) as app:
        sent = await app.service(LogsClerk).wait.send()
        await app.settle()
        await app.pause(sent.id)
        (line,) = [record for record in caplog.records if "paused" in record.getMessage()]
        assert (line.levelno, line.getMessage().split(" invocation=")[0]) == (logging.INFO, "paused by hand")
        await app.kill(sent.id)


class LogsClerk(Service):
    @handler
    async def wait(self, ctx: Context) -> None:
        await ctx.sleep(100)
