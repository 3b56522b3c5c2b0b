"""Rule E3: at any border user code may raise anything. Its own caller hears of it, and all others of the same turn are
answered as if nothing had happened.

Each kind of error is raised at all borders at once, between requests that are in order, while every observer, every
handler of log records and the hook behind `on_paused` raise it too.
"""

# pyright: reportPrivateUsage=false
# Whether the machine has failed is seen inside only.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from durably import (
    Context,
    Invocation,
    ObjectContext,
    RetryPolicy,
    Runtime,
    Service,
    TerminalError,
    VirtualObject,
    handler,
    state,
)
from durably.runtime.environment import Environment
from durably.runtime.gateway.requests import InvocationRequest
from durably.runtime.observation.observer import Observer
from durably.storage.memory import Disk, MemoryStore
from tests.semantics.support import begin


class OwnError(BaseException):
    """As `pytest.fail` and others raise them."""


KINDS: dict[str, Callable[[], BaseException]] = {
    "Exception": ValueError,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "own": OwnError,
    "a group": lambda: BaseExceptionGroup("several", [OwnError(), SystemExit()]),
    "pytest.fail": lambda: pytest.fail.Exception("failed"),
}


class Way:
    kind = "Exception"
    codec_refuses_to_read = False


def leave() -> NoReturn:
    raise KINDS[Way.kind]()


async def leave_on_the_loop() -> None:
    await asyncio.sleep(0)
    leave()


class Word(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def check(cls, text: str) -> str:
        if text == "validator":
            leave()
        return text

    @field_serializer("text")
    def write(self, text: str) -> str:
        if text == "serializer":
            leave()
        return text


class TextSerde:
    content_type = "text/plain"

    def encode(self, value: str) -> bytes:
        if value == "encode":
            leave()
        return value.encode()

    def decode(self, data: bytes) -> str:
        if data in (b"decode", b"decode again"):
            leave()
        return data.decode()


class Codec:
    def encode(self, data: bytes, /) -> bytes:
        if b"codec" in data:
            leave()
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        if Way.codec_refuses_to_read and b"unreadable"[::-1] in data:
            leave()
        return data[::-1]


class Untold(Exception):
    def __str__(self) -> str:
        leave()


def no_text() -> str:
    leave()


class Defaulting(VirtualObject):
    value: str = state(default_factory=no_text)

    @handler
    async def show(self, ctx: ObjectContext) -> str:
        return self.value


class Object(VirtualObject):
    word: Word = state(default=Word(text=""))
    text: str = state(default="", serde=TextSerde())

    @handler
    async def at(self, ctx: ObjectContext, place: str) -> Any:
        match place:
            case "handler":
                leave()
            case "task":
                await asyncio.gather(leave_on_the_loop(), ctx.sleep(60))
            case "callback":
                asyncio.get_running_loop().call_soon(leave)
                raise TerminalError("it called back")
            case "action":
                await ctx.run("act", leave_on_the_loop)
            case "thread":
                await ctx.run("act", leave)
            case "action result":
                await ctx.run.options(serde=TextSerde())("act", lambda: "encode")
            case "serializer":
                self.word = Word.model_construct(text="serializer")
            case "serde of state":
                self.text = "encode"
            case "serde of state that reads":
                self.text = "decode again"
            case "text of an error":
                raise Untold
            case "codec":
                self.text = "codec"
            case "codec of a result":
                return "codec"
            case "codec of an action":
                await ctx.run("act", lambda: "codec")
            case _:
                raise AssertionError(place)
        return None

    @handler
    async def add(self, ctx: ObjectContext, word: str) -> str:
        text = self.text + word
        self.text = await ctx.run("act", lambda: text)
        return self.text


class Words(Service):
    @handler
    async def modelled(self, ctx: Context, word: Word) -> str:
        return word.text

    @handler(accepts=TextSerde())
    async def read(self, ctx: Context, text: str) -> str:
        return text

    @handler(returns=TextSerde())
    async def written(self, ctx: Context, text: str) -> str:
        return text


IN_HANDLERS = (
    "handler", "task", "callback", "action", "thread", "action result", "serializer", "serde of state",
    "serde of state that reads", "text of an error", "codec", "codec of a result", "codec of an action",
)  # fmt: skip


def outside(service: str, name: str, body: bytes) -> InvocationRequest:
    return InvocationRequest(service=service, handler=name, key=None, body=body)


def borders(runtime: Runtime) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What goes wrong, by where."""
    words = runtime.service(Words)
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "validator": lambda: runtime.request_call(outside("Words", "modelled", b'{"text": "validator"}')),
        "decode outside": lambda: runtime.request_call(outside("Words", "read", b"decode")),
        "serializer outside": lambda: words.modelled(Word.model_construct(text="serializer")),
        "encode outside": lambda: words.read("encode"),
        "encode of a result": lambda: words.written("encode"),
        "decode of a result": lambda: words.written("decode"),
        "codec of an argument": lambda: words.read("codec"),
        "default factory": lambda: runtime.object(Defaulting, "k").show(),
    }
    for number, place in enumerate(IN_HANDLERS):
        asked[place] = partial(asking_at, runtime, f"bad{number}", place)
    return asked


def asking_at(runtime: Runtime, key: str, place: str) -> Awaitable[Any]:
    return runtime.object(Object, key).at(place)


def adding(runtime: Runtime, key: str, word: str) -> Awaitable[str]:
    return runtime.object(Object, key).add(word)


async def told(ask: Callable[[], Awaitable[Any]]) -> str:
    """What the caller hears. An error that is no Exception would end its task."""
    try:
        return f"answered {await ask()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    except asyncio.CancelledError:
        return "lost: the caller was cancelled"


class RaisingObserver(Observer):
    detailed = True


def _raises(*_: object) -> None:
    leave()


for _name in [name for name in vars(Observer) if not name.startswith("_") and callable(getattr(Observer, name))]:
    setattr(RaisingObserver, _name, _raises)


class RaisingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        leave()


@contextmanager
def raising_logs() -> Generator[None]:
    logger, raising = logging.getLogger("durably"), RaisingHandler()
    logger.addHandler(raising)
    try:
        yield
    finally:
        logger.removeHandler(raising)


async def hook(paused: Invocation[Any], error: BaseException) -> None:
    leave()


def make_runtime(disk: Disk) -> Runtime:
    return Runtime(
        MemoryStore(disk),
        [Words, Object, Defaulting],
        retry=RetryPolicy(max_attempts=1),
        drain=0,
        on_paused=hook,
        codec=Codec(),
        environment=Environment(observer=RaisingObserver()),
    )


def incarnations_of(runtime: Runtime) -> int:
    assert runtime._supervisor is not None
    return runtime._supervisor.incarnations


@pytest.mark.parametrize("kind", KINDS)
def test_what_user_code_raises_at_any_border_is_told_to_its_caller_alone(kind: str) -> None:
    Way.kind, Way.codec_refuses_to_read = kind, False
    unexpected: list[dict[str, Any]] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unexpected.append(context))
        disk = Disk()
        async with make_runtime(disk) as runtime:
            asked = borders(runtime)
            bad: dict[str, asyncio.Task[str]] = {}
            good: list[asyncio.Task[str]] = []
            for place, ask in asked.items():  # All arrive in one turn.
                bad[place] = begin(told(ask))
                good.append(begin(told(partial(adding, runtime, f"good{len(good)}", "a"))))
            _, waiting = await asyncio.wait([*bad.values(), *good], timeout=60)
            assert not waiting, [place for place, task in bad.items() if not task.done()]
            assert {task.result() for task in good} == {"answered 'a'"}
            answers = {place: task.result() for place, task in bad.items()}
            wrong = {place: answer for place, answer in answers.items() if answer.startswith(("answered", "lost"))}
            assert wrong == {}
            assert incarnations_of(runtime) == 1
            assert await runtime.object(Object, "unreadable").add("unreadable") == "unreadable"
        Way.codec_refuses_to_read = True
        async with make_runtime(disk) as runtime:
            keys = ("good0", "unreadable", "good1")
            asking = [begin(told(partial(adding, runtime, key, "b"))) for key in keys]
            await asyncio.wait(asking, timeout=60)
            first, unreadable, second = [task.result() for task in asking]
            assert (first, second) == ("answered 'ab'", "answered 'ab'")
            assert unreadable.startswith("PausedInvocationError")
            assert incarnations_of(runtime) == 1

    with raising_logs():
        try:
            asyncio.run(program())
        except (SystemExit, KeyboardInterrupt) as error:
            pytest.fail(f"{error!r} ended the host")
    assert unexpected == []
