"""Rule E3: user code that raises SystemExit or KeyboardInterrupt never ends the host. Only a signal does."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, Field, field_serializer, field_validator

from durably import (
    ActionFailedError,
    Context,
    InvalidArgumentError,
    Invocation,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    Runtime,
    Service,
    TerminalError,
    UnencodableError,
    VirtualObject,
    handler,
    state,
)
from durably.actors.values.user_errors import is_from_signal
from durably.runtime.environment import Environment
from durably.runtime.observation.observer import Observer
from durably.storage.memory import MemoryStore
from tests.semantics.support import begin, turns

EXITS = {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}


class Way:
    """How user code leaves in the test that runs."""

    exit: type[BaseException] = SystemExit


def leave() -> NoReturn:
    raise Way.exit(0)


async def leave_on_the_loop() -> None:
    await asyncio.sleep(0)
    leave()


async def leave_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(leave_on_the_loop())


async def leave_in_a_gathering() -> None:
    await asyncio.gather(leave_on_the_loop(), asyncio.sleep(0))


async def leave_in_a_task_of_a_task() -> None:
    await asyncio.create_task(leave_in_a_gathering())


async def leave_in_a_thread_of_a_library() -> None:
    await asyncio.to_thread(leave)


async def leave_behind_its_back() -> None:
    """The task that leaves is awaited by nothing; asyncio reports it."""
    task = asyncio.ensure_future(leave_on_the_loop())
    await asyncio.wait([task])
    error = task.exception()
    assert error is not None
    raise TerminalError(f"a task ended with {error}")


def leave_in_a_thread() -> None:
    leave()


ACTIONS: dict[str, Callable[[], Any]] = {
    "at once": leave_on_the_loop,
    "in a task of a group": leave_in_a_group,
    "in a gathered task": leave_in_a_gathering,
    "in a task of a task": leave_in_a_task_of_a_task,
    "in a thread": leave_in_a_thread,
    "in a thread of a library": leave_in_a_thread_of_a_library,
}


class Leaving(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def check(cls, number: int) -> int:
        if number == 13:
            leave()
        return number

    @field_serializer("number")
    def write(self, number: int) -> int:
        if number == 14:
            leave()
        return number


class LeavingSerde:
    content_type = "text/plain"

    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        leave()


class Untold(Exception):
    def __str__(self) -> str:
        leave()


class Drawn(BaseModel):
    """Its default is drawn whenever it is read, and leaves if it is not the first time."""

    number: int
    draw: int = Field(default_factory=lambda: drawn.pop() if drawn else leave())


drawn: list[int] = []


class Leaver(VirtualObject):
    drawn: Drawn = state(default=Drawn(number=1, draw=1))
    kept: Leaving = state(default=Leaving(number=1))

    @handler
    async def act(self, ctx: ObjectContext, place: str) -> str:
        try:
            await ctx.run("act", ACTIONS[place])
        except ActionFailedError as error:
            return f"{error.attempts}: {error.message}"
        return "acted"

    @handler
    async def act_behind(self, ctx: ObjectContext) -> None:
        await ctx.run("act", leave_behind_its_back)

    @handler
    async def handle(self, ctx: ObjectContext, where: str) -> None:
        match where:
            case "at once":
                leave()
            case "in a task":
                await leave_in_a_group()
            case "in a callback":
                asyncio.get_running_loop().call_soon(leave)
                await ctx.sleep(60)
            case "in a default factory":
                self.drawn = Drawn(number=2)
            case "in a serializer":
                self.kept = Leaving(number=14)
            case "in the text of an error":
                raise Untold
            case _:
                raise AssertionError(where)

    @handler
    async def take(self, ctx: ObjectContext, given: Leaving) -> None: ...

    @handler
    async def answer(self, ctx: ObjectContext) -> Leaving:
        return Leaving(number=14)

    @handler
    async def decode(self, ctx: ObjectContext, given: str) -> str:
        return given


def run(program: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a program as a host does; what would end that host is a failure here."""
    try:
        return asyncio.run(program())
    except (SystemExit, KeyboardInterrupt) as error:
        pytest.fail(f"{error!r} ended the host")


@pytest.fixture(params=list(EXITS), autouse=True)
def exit_name(request: pytest.FixtureRequest) -> str:
    Way.exit = EXITS[request.param]
    name: str = request.param
    return name


@pytest.mark.parametrize("place", list(ACTIONS))
def test_an_action_that_leaves_fails_for_good(place: str, exit_name: str) -> None:
    async def program() -> str:
        loop = asyncio.get_running_loop()
        async with Runtime(MemoryStore(), [Leaver], drain=0) as runtime:
            told: str = await runtime.object(Leaver, "a").act(place)
            assert loop.get_task_factory() is None  # The host's loop is as it was.
            return told

    told = run(program)
    assert told.startswith("1: ")  # Another attempt would leave again.
    assert exit_name in told


def test_a_task_of_an_action_shows_its_exit_as_its_error(exit_name: str) -> None:
    async def program() -> str:
        async with Runtime(MemoryStore(), [Leaver], drain=0) as runtime:
            with pytest.raises(TerminalError) as failed:
                await runtime.object(Leaver, "a").act_behind()
            return failed.value.message

    assert exit_name in run(program)


@pytest.mark.parametrize("where", ["at once", "in a task", "in a callback", "in a default factory", "in a serializer"])
def test_a_handler_that_leaves_is_paused(where: str, exit_name: str) -> None:
    async def program() -> str:
        async with Runtime(MemoryStore(), [Leaver], drain=0) as runtime:
            with pytest.raises(PausedInvocationError) as paused:
                await runtime.object(Leaver, "a").handle(where)
            return str(paused.value)

    assert exit_name in run(program) or where == "in a serializer"  # That one is told with what it wrote.


def test_an_error_whose_text_leaves_is_retried_as_any_other() -> None:
    async def program() -> InvocationStatus:
        async with Runtime(MemoryStore(), [Leaver], drain=0) as runtime:
            handle = await runtime.object(Leaver, "a").handle.send("in the text of an error")
            await turns()
            return await handle.status()

    assert run(program) is InvocationStatus.BACKING_OFF


def test_values_whose_code_leaves_are_refused() -> None:
    async def program() -> None:
        async with Runtime(MemoryStore(), [Leaver], drain=0) as runtime:
            leaver = runtime.object(Leaver, "a")
            with pytest.raises(InvalidArgumentError):
                await runtime.call("Leaver", "take", b'{"number": 13}', key="a")
            with pytest.raises(UnencodableError):
                await leaver.take(Leaving.model_construct(number=14))
            with pytest.raises(PausedInvocationError):
                await leaver.answer()

    run(program)


def test_a_serde_that_leaves_is_refused() -> None:
    class Decoded(Service):
        @handler(accepts=LeavingSerde())
        async def decode(self, ctx: Context, given: str) -> str:
            return given

    async def program() -> None:
        async with Runtime(MemoryStore(), [Decoded], drain=0) as runtime:
            with pytest.raises((InvalidArgumentError, UnencodableError)):
                await runtime.service(Decoded).decode("text")

    run(program)


@pytest.mark.parametrize("hook_leaves", [leave_on_the_loop, leave_in_a_gathering, leave_in_a_group])
def test_an_on_paused_hook_that_leaves_is_logged(
    hook_leaves: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture, exit_name: str
) -> None:
    async def hook(paused: Invocation[Any], error: BaseException) -> None:
        await hook_leaves()

    async def program() -> None:
        async with Runtime(MemoryStore(), [Leaver], drain=0, on_paused=hook) as runtime:
            await runtime.object(Leaver, "a").handle.send("at once")
            await turns()

    run(program)
    (line,) = [record.getMessage() for record in caplog.records if "on_paused raised" in record.getMessage()]
    assert exit_name in line


def test_an_observer_that_leaves_is_logged(caplog: pytest.LogCaptureFixture, exit_name: str) -> None:
    class Leaving(Observer):
        detailed = True

        def accepted(self, invocation: object) -> None:
            leave()

        def committed(self, position: int) -> None:
            leave()

    async def program() -> str:
        environment = Environment(observer=Leaving())
        async with Runtime(MemoryStore(), [Leaver], drain=0, environment=environment) as runtime:
            told: str = await runtime.object(Leaver, "a").decode("well")
            return told

    assert run(program) == "well"
    assert any(f"observed='committed' error='{exit_name}" in record.getMessage() for record in caplog.records)


def test_a_log_handler_that_leaves_loses_its_line_only() -> None:
    class Leaving(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            leave()

    async def program() -> str:
        async with Runtime(MemoryStore(), [Leaver], drain=0) as runtime:
            with pytest.raises(PausedInvocationError):
                await runtime.object(Leaver, "a").handle("at once")
            told: str = await runtime.object(Leaver, "b").decode("well")
            return told

    handler = Leaving()
    logging.getLogger("durably").addHandler(handler)
    try:
        assert run(program) == "well"
    finally:
        logging.getLogger("durably").removeHandler(handler)


# ---------------------------------------------------------------- signals


@contextmanager
def handling(number: signal.Signals, handle: Any) -> Generator[None]:
    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


def exit_by(*_: object) -> NoReturn:
    sys.exit("terminated")


def interrupt_by(*_: object) -> NoReturn:
    raise KeyboardInterrupt("terminated")


class Exiting:
    """A handler of signals that is an object."""

    def __call__(self, *_: object) -> None:
        sys.exit("terminated")


SIGNALS: dict[str, tuple[signal.Signals, Any]] = {
    "Ctrl-C": (signal.SIGINT, signal.default_int_handler),
    "Ctrl-C, by a handler of the host": (signal.SIGINT, interrupt_by),
    "SIGTERM, by a function that exits": (signal.SIGTERM, exit_by),
    "SIGTERM, by a partial": (signal.SIGTERM, partial(exit_by, 1)),
    "SIGTERM, by an object": (signal.SIGTERM, Exiting()),
}


class Interrupted(VirtualObject):
    count: int = state(default=0)

    @handler
    async def work(self, ctx: ObjectContext, number: int, where: str) -> int:
        self.count += 1
        if where == "an action":
            await ctx.run("signal", partial(self._act, number))
        else:
            self._come(number)
        return self.count

    async def _act(self, number: int) -> None:
        self._come(number)

    def _come(self, number: int) -> None:
        if raised:
            return
        raised.append(number)
        os.kill(os.getpid(), number)
        for _ in range(1_000_000):  # Python looks for signals between instructions.
            pass


raised: list[int] = []


@pytest.mark.parametrize("where", ["a handler", "an action"])
@pytest.mark.parametrize("way", list(SIGNALS))
def test_a_signal_in_the_midst_of_user_code_is_the_hosts_and_leaves_no_record(way: str, where: str) -> None:
    number, handle = SIGNALS[way]
    store = MemoryStore()
    raised.clear()

    async def program() -> int:
        async with Runtime(store, [Interrupted], drain=0) as runtime:
            result: int = await runtime.object(Interrupted, "a").work.options(idempotency_key="k")(int(number), where)
            return result

    async def closed() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop = asyncio.new_event_loop()
    try:
        with handling(number, handle), pytest.raises((SystemExit, KeyboardInterrupt)):
            loop.run_until_complete(program())
        loop.run_until_complete(closed())
    finally:
        loop.close()
    assert raised == [int(number)]
    assert asyncio.run(program()) == 1


def test_the_second_ctrl_c_of_an_asyncio_program_is_the_hosts() -> None:
    class Quitter(Service):
        @handler
        async def quit(self, ctx: Context) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    async def program() -> None:
        async with Runtime(MemoryStore(), [Quitter], drain=0) as runtime:
            await runtime.service(Quitter).quit()

    with handling(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        asyncio.run(program())


def test_after_a_signal_the_others_have_their_turn() -> None:
    class Two(Service):
        @handler
        async def quit(self, ctx: Context) -> None:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
            await ctx.sleep(1)

        @handler
        async def work(self, ctx: Context) -> str:
            return "done"

    runtime = Runtime(MemoryStore(), [Two], drain=0)
    begun: list[asyncio.Task[Any]] = []

    async def enter() -> None:
        await runtime.__aenter__()
        begun.extend((begin(runtime.service(Two).quit()), begin(runtime.service(Two).work())))
        await turns()

    async def leave() -> str:
        worked: str = await asyncio.wait_for(begun[1], 60)
        begun[0].cancel()
        await runtime.__aexit__(None, None, None)
        return worked

    with asyncio.Runner() as runner:
        with handling(signal.SIGTERM, exit_by), pytest.raises(SystemExit):
            runner.run(enter())
        assert runner.run(leave()) == "done"


def test_nothing_in_another_thread_is_from_a_signal() -> None:
    told: list[bool] = []

    def work() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            told.append(is_from_signal(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]
