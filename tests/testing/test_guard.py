"""The guard: handlers that read a clock or take randomness past their context are told what to use instead."""

from __future__ import annotations

import asyncio
import copy
import datetime as calendar
import email.utils
import gc
import getpass
import logging
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from os import urandom
from pathlib import Path
from random import choice
from time import monotonic
from time import time as read_the_clock
from types import ModuleType
from typing import Any

import pytest
import structlog

from durably import Context, PausedInvocationError, RetryPolicy, Service, TerminalError, handler
from durably.errors import HandlerMistakeError, UnrepeatableCallError, find_mistake
from durably.testing import Harness

RECORDED = "On replay it would give something else. Use ctx.now(), which is recorded."
REPEATED = "On replay it would give something else. Use ctx.random(), which gives the same numbers on replay."
SAME = "On replay it would give something else. Use ctx.uuid(), which gives the same one on replay."
DURABLE = "Use `await ctx.sleep(...)` or `await asyncio.sleep(...)`, which are durable."
SECRET = '`await ctx.run("secret", secrets.token_hex)`, which is recorded.'


class Moment(datetime):
    """A class of the user's own."""


class Caller(Service):
    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    @handler
    async def call(self, ctx: Context) -> str:
        return str(self.function())

    @handler
    async def call_later(self, ctx: Context) -> str:
        await ctx.sleep(60)
        return str(self.function())

    @handler
    async def call_in_a_group(self, ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.call_in_a_task())

    async def call_in_a_task(self) -> str:
        return str(self.function())

    @handler
    async def call_inside_an_action(self, ctx: Context) -> str:
        return await ctx.run("read", lambda: str(self.function()))

    @handler
    async def swallow(self, ctx: Context) -> str:
        try:
            self.function()
        except Exception:
            return "nobody knows"
        return "allowed"

    @handler
    async def turn_into_a_failure(self, ctx: Context) -> str:
        try:
            return str(self.function())
        except HandlerMistakeError as error:
            raise TerminalError("no time") from error

    @handler
    async def stumble_over_it(self, ctx: Context) -> str:
        try:
            return str(self.function())
        except HandlerMistakeError:
            raise KeyError("clock") from None

    @handler
    async def wait_for(self, ctx: Context) -> str:
        """From Python 3.12 asyncio's own frame is between the handler and what it awaits."""
        return await asyncio.wait_for(self.call_in_a_task(), 60)


def harness(function: Callable[[], Any], **options: Any) -> Harness:
    return Harness(Caller, dependencies={Callable[[], Any]: function}, **options)


async def refused(function: Callable[[], Any], name: str = "call", **options: Any) -> UnrepeatableCallError:
    """The mistake that pauses the handler of this name."""
    with pytest.raises(PausedInvocationError) as paused:
        async with harness(function, **options) as app:
            await getattr(app.service(Caller), name)()
    assert isinstance(paused.value.__cause__, UnrepeatableCallError)
    return paused.value.__cause__


async def allowed(function: Callable[[], Any], name: str = "call", **options: Any) -> None:
    """Nothing is said of it, and what it gives is the same on replay."""
    async with harness(function, **options) as app:
        await getattr(app.service(Caller), name)()


def note(function: Callable[[], Any]) -> Callable[[], str]:
    """It is called, and its result is not seen by the replay."""

    def call() -> str:
        function()
        return "called"

    return call


@pytest.mark.parametrize(
    ("function", "title", "advice"),
    [
        (lambda: time.time(), "time.time()", RECORDED),
        (lambda: read_the_clock(), "time.time()", RECORDED),
        (lambda: getattr(time, "time_ns")(), "time.time_ns()", RECORDED),  # noqa: B009
        (lambda: monotonic(), "time.monotonic()", RECORDED),
        (lambda: time.perf_counter(), "time.perf_counter()", RECORDED),
        (lambda: time.process_time(), "time.process_time()", RECORDED),
        (lambda: time.localtime(), "time.localtime()", RECORDED),
        (lambda: time.strftime("%Y"), "time.strftime()", RECORDED),
        (lambda: datetime.now(tz=UTC), "datetime.datetime.now()", RECORDED),
        (lambda: calendar.datetime.now(UTC), "datetime.datetime.now()", RECORDED),
        (lambda: Moment.now(UTC), "datetime.Moment.now()", RECORDED),
        (lambda: date.today(), "datetime.date.today()", RECORDED),  # noqa: DTZ011
        (lambda: random.random(), "random.random()", REPEATED),
        (lambda: random.randint(1, 6), "random.randint()", REPEATED),
        (lambda: choice("abc"), "random.choice()", REPEATED),
        (lambda: random.shuffle([1, 2, 3]), "random.shuffle()", REPEATED),
        (lambda: random.uniform(0, 1), "random.uniform()", REPEATED),
        (lambda: random.Random(), "random.Random()", REPEATED),
        (lambda: random.SystemRandom().random(), "random.random()", REPEATED),
        (lambda: uuid.uuid4(), "uuid.uuid4()", SAME),
        (lambda: uuid.uuid1(), "uuid.uuid1()", SAME),
        (lambda: urandom(8), "os.urandom()", SECRET),
        (lambda: secrets.token_hex(), "secrets.token_hex()", SECRET),
        (lambda: time.sleep(0), "time.sleep()", DURABLE),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(")") else "",
)
async def test_a_handler_that_reads_it_is_told_where_and_what_to_use(
    function: Callable[[], Any], title: str, advice: str
) -> None:
    message = (await refused(function)).message
    line = function.__code__.co_firstlineno
    assert message.startswith(f"Caller/call called {title} at {__file__}:{line} (in <lambda>). ")
    assert message.endswith(advice)


OF_THE_PROCESS = {
    "hash(text)": (lambda: hash("a word"), "hash()", "hashlib"),
    "hash(parts)": (lambda: hash((1, ("a word", 2))), "hash()", "hashlib"),
    "hash(bytes)": (lambda: hash(b"a word"), "hash()", "hashlib"),
    "os.getpid": (lambda: os.getpid(), "os.getpid()", "as a dependency"),
    "os.getppid": (lambda: os.getppid(), "os.getppid()", "as a dependency"),
    "threading.get_ident": (lambda: threading.get_ident(), "threading.get_ident()", "as a dependency"),
    "threading.get_native_id": (lambda: threading.get_native_id(), "threading.get_native_id()", "as a dependency"),
    "os.environ[]": (lambda: os.environ["PATH"], "os.environ()", "as a dependency"),
    "os.environ.get": (lambda: os.environ.get("PATH"), "os.environ()", "as a dependency"),
    "os.getenv": (lambda: os.getenv("PATH"), "os.environ()", "as a dependency"),
    "list(os.environ)": (lambda: list(os.environ), "os.environ()", "as a dependency"),
    "open": (lambda: open(__file__).close(), "open()", "as a dependency"),
    "Path.read_text": (lambda: Path(__file__).read_text("utf-8"), "pathlib.", "as a dependency"),
    "os.listdir": (lambda: os.listdir("."), "os.listdir()", "as a dependency"),
    "os.scandir": (lambda: os.scandir(".").close(), "os.scandir()", "as a dependency"),
    "Path.iterdir": (lambda: list(Path().iterdir()), "pathlib.", "as a dependency"),
    "socket.socket": (lambda: socket.socket().close(), "socket.socket()", "Connect in a function"),
    "socket.create_connection": (
        lambda: socket.create_connection(("::1", 9)),
        "socket.create_connection()",
        "Connect in a",
    ),
    "socket.gethostname": (lambda: socket.gethostname(), "socket.gethostname()", "as a dependency"),
    "socket.getfqdn": (lambda: socket.getfqdn(), "socket.getfqdn()", "as a dependency"),
    "socket.getaddrinfo": (lambda: socket.getaddrinfo("localhost", 80), "socket.getaddrinfo()", "Connect in a"),
    "os.getcwd": (lambda: os.getcwd(), "os.getcwd()", "as a dependency"),
    "os.path.abspath": (lambda: os.path.abspath("x"), "os.path.abspath()", "as a dependency"),
    "os.path.exists": (lambda: os.path.exists("x"), "os.path.exists()", "as a dependency"),
    "Path.cwd": (lambda: Path.cwd(), "pathlib.cwd()", "as a dependency"),
    "os.cpu_count": (lambda: os.cpu_count(), "os.cpu_count()", "as a dependency"),
    "os.uname": (lambda: os.uname(), "os.uname()", "as a dependency"),
    "os.getuid": (lambda: os.getuid(), "os.getuid()", "as a dependency"),
    "getpass.getuser": (lambda: getpass.getuser(), "getpass.getuser()", "as a dependency"),
    "subprocess.run": (lambda: subprocess.run(["true"], check=True), "subprocess.Popen()", "Start it in a function"),
    "subprocess.Popen": (lambda: subprocess.Popen(["true"]).wait(), "subprocess.Popen()", "Start it in a function"),
}


@pytest.mark.parametrize(("function", "title", "advice"), OF_THE_PROCESS.values(), ids=OF_THE_PROCESS)
async def test_a_handler_that_looks_at_its_process_is_told_where_and_what_to_do(
    function: Callable[[], Any], title: str, advice: str
) -> None:
    message = (await refused(function)).message
    assert message.startswith(f"Caller/call called {title}")
    assert f"at {__file__}:{function.__code__.co_firstlineno} (in <lambda>). " in message
    assert advice in message


@pytest.mark.parametrize("function", [value[0] for value in OF_THE_PROCESS.values()], ids=OF_THE_PROCESS)
async def test_an_action_may_look_at_its_process(function: Callable[[], Any]) -> None:
    def look() -> str:
        with suppress(OSError):
            function()
        return "looked"

    await allowed(look, "call_inside_an_action")


@pytest.mark.parametrize(
    "function",
    [
        lambda: hash(7),
        lambda: {"a word": 1}["a word"],
        lambda: len({"a", "b"} | {"c"}),
        lambda: os.path.join("a", "b"),
        lambda: Path("a") / "b",
    ],
)
async def test_what_is_the_same_in_each_process_is_allowed(function: Callable[[], Any]) -> None:
    await allowed(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda: datetime.fromtimestamp(0, UTC),
        lambda: datetime(2026, 1, 1, tzinfo=UTC).date(),
        lambda: time.gmtime(0),
        lambda: time.strftime("%Y", time.gmtime(0)),
        lambda: random.Random(7).choice("abc"),
        lambda: random.Random("seed").random(),
        lambda: uuid.UUID(int=7),
        lambda: uuid.uuid5(uuid.NAMESPACE_DNS, "durably"),
    ],
)
async def test_what_only_calculates_is_allowed(function: Callable[[], Any]) -> None:
    await allowed(function)


@pytest.mark.parametrize("name", ["call", "swallow", "turn_into_a_failure", "stumble_over_it", "wait_for"])
async def test_it_is_found_whatever_the_handler_does_with_the_error(name: str) -> None:
    assert "time.time()" in (await refused(time.time, name)).message


async def test_it_pauses_at_once_however_often_the_handler_may_be_tried() -> None:
    async with harness(time.time, retry=RetryPolicy()) as app:
        await app.service(Caller).swallow.send()
        with pytest.raises(UnrepeatableCallError):
            await app.settle()


async def test_it_is_found_in_a_task_of_the_handler() -> None:
    with pytest.raises(PausedInvocationError) as paused:
        async with harness(lambda: time.time()) as app:
            await app.service(Caller).call_in_a_group()
    assert paused.value.__cause__ is not None
    mistake = find_mistake(paused.value.__cause__)
    assert isinstance(mistake, UnrepeatableCallError)
    assert isinstance(paused.value.__cause__, ExceptionGroup)


async def test_it_is_found_in_a_later_step() -> None:
    async with harness(lambda: time.time()) as app:
        waiting = asyncio.create_task(app.service(Caller).call_later())
        await app.settle()
        assert not waiting.done()
        await app.advance(minutes=1)
        with pytest.raises(PausedInvocationError) as paused:
            await waiting
    assert isinstance(paused.value.__cause__, UnrepeatableCallError)


async def test_of_a_library_the_users_own_line_is_named() -> None:
    message = (await refused(draw_a_key)).message
    line = draw_a_key.__code__.co_firstlineno + 1
    assert message.startswith(f"Caller/call called a library at {__file__}:{line} (in draw_a_key), and that called")
    assert f"time.time() at {email.utils.__file__}:" in message
    assert message.endswith('write `await ctx.run("name", function, ...)`.')


def draw_a_key() -> str:
    return email.utils.make_msgid()


async def test_an_action_may_read_what_it_likes() -> None:
    await allowed(lambda: time.time(), "call_inside_an_action")
    await allowed(lambda: uuid.uuid4(), "call_inside_an_action")


def log_with_logging() -> None:
    logging.getLogger("tests.guard").warning("the record has a time")


def log_with_structlog() -> None:
    structlog.configure(
        processors=[stamp, structlog.processors.TimeStamper()], logger_factory=structlog.ReturnLoggerFactory()
    )
    structlog.get_logger().info("stamped twice")


def stamp(_logger: Any, _method: str, fields: Any) -> Any:
    """A processor of the user's own."""
    fields["seconds"] = time.time()
    return fields


@pytest.mark.parametrize("function", [log_with_logging, log_with_structlog])
async def test_logging_may_read_the_clock_and_so_may_what_it_calls(function: Callable[[], Any]) -> None:
    await allowed(note(function))


def module(name: str, code: str, **names: Any) -> Mapping[str, Any]:
    made = ModuleType(name)
    vars(made).update(names)
    exec(code, vars(made))
    return vars(made)


async def test_modules_that_are_allowed_may_read_the_clock_and_so_may_what_they_call() -> None:
    clock = module("acme.metrics.clock", "import time\ndef read(): return time.time()")
    timed = note(module("acme.metrics", "def timed(): return read()", read=lambda: clock["read"]())["timed"])
    await allowed(timed, allow=["acme.metrics"])
    await allowed(timed, allow=["acme"])
    assert "acme" not in (await refused(timed)).message
    await refused(timed, allow=["acme.met", "acme.metrics.other"])


async def test_what_asyncio_and_durably_themselves_read_is_no_matter_of_the_handler() -> None:
    for name in ("asyncio.imaginary", "durably.imaginary"):
        await allowed(note(module(name, "import time\ndef read(): return time.time()")["read"]))
        passing_on = module(name, "def read(): return function()", function=lambda: time.time())["read"]
        await refused(passing_on)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
async def test_a_generator_may_be_copied(copied: Callable[[Any], Any]) -> None:
    """`copy` makes one without a seed, and then gives it the numbers of the first."""
    await allowed(lambda: copied(random.Random(5)).random())


async def test_what_a_library_copies_by_code_of_its_own_is_watched() -> None:
    class Clock:
        def __copy__(self) -> float:
            return time.time()

    assert "called time.time()" in str(await refused(lambda: copy.copy(Clock())))


async def test_what_ends_while_the_handler_runs_may_read_the_clock() -> None:
    class Connection:
        def __del__(self) -> None:
            self.closed_at = time.time()

    def leave_garbage() -> None:
        connection = Connection()
        connection.itself = connection  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        del connection
        gc.collect()

    await allowed(note(leave_garbage))


def test_a_name_instead_of_a_list_of_names_is_refused() -> None:
    with pytest.raises(TypeError, match=r"allow=\['acme'\], with the brackets"):
        harness(time.time, allow="acme")


async def test_the_thread_has_no_profiler_between_two_steps() -> None:
    await refused(time.time)
    assert sys.getprofile() is None
    await allowed(note(int))
    assert sys.getprofile() is None


async def test_the_guard_stands_aside_while_somebody_profiles() -> None:
    seen: list[str] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "c_call" and argument is time.monotonic:
            seen.append(Path(frame.f_code.co_filename).name)

    sys.setprofile(profile)
    try:
        await allowed(note(lambda: time.monotonic()))
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    assert Path(__file__).name in seen
