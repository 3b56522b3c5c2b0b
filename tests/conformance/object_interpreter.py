"""Three layers of objects that interpret programs of numbered commands, and the helper that they call.

What a program does can be counted: each object's counter in the end is the number of its increments, whatever crashed
meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec

from durably import (
    Context,
    Invocation,
    ObjectContext,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    state,
)
from durably import shared as shared_handler

OK = "ok"
REJECTED = "rejected"


class Kind(IntEnum):
    """What a command does."""

    SET = 1
    GET = 2
    CLEAR = 3
    INCREMENT = 4
    INCREMENT_INDIRECTLY = 5
    SLEEP = 6
    CALL = 7
    CALL_SLOW = 8
    INCREMENT_VIA_DELAYED_CALL = 9
    RUN = 10
    THROWING_RUN = 11
    SLOW_RUN = 12
    RECOVER_TERMINAL_CALL = 13
    RECOVER_TERMINAL_MAYBE_UNAWAITED = 14
    AWAIT = 15
    RESOLVE_AWAKEABLE = 16
    REJECT_AWAKEABLE = 17
    INCREMENT_VIA_AWAKEABLE = 18
    CALL_NEXT_LAYER = 19


class Command(msgspec.Struct, frozen=True):
    """One of a program; each kind has its own of the fields."""

    kind: Kind
    key: int = 0
    duration: int = 0
    sleep: int = 0
    index: int = 0
    program: Program | None = None


class Program(msgspec.Struct, frozen=True):
    """What an object is to do."""

    commands: list[Command]


class EchoLaterRequest(msgspec.Struct, frozen=True):
    """A text to give back after so many milliseconds."""

    sleep: int
    parameter: str


class InterpreterId(msgspec.Struct, frozen=True):
    """An object of a layer."""

    layer: int
    key: str


class DanceRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Who is to be incremented, and the awakeable through which it is told of another."""

    interpreter: InterpreterId
    tx_promise_id: str


INCREMENT_ONCE = Program([Command(Kind.INCREMENT)])


class ServiceInterpreterHelper(Service):
    """What the objects call."""

    @handler
    async def ping(self, ctx: Context) -> None: ...

    @handler
    async def echo(self, ctx: Context, text: str) -> str:
        return text

    @handler(name="echoLater")
    async def echo_later(self, ctx: Context, request: EchoLaterRequest) -> str:
        await ctx.sleep(request.sleep / 1000)
        return request.parameter

    @handler(name="terminalFailure")
    async def terminal_failure(self, ctx: Context) -> None:
        raise TerminalError("bye")

    @handler(name="incrementIndirectly")
    async def increment_indirectly(self, ctx: Context, target: InterpreterId) -> None:
        await _send_increment(ctx, target)

    @handler(name="resolveAwakeable")
    async def resolve_awakeable(self, ctx: Context, id: str) -> None:
        await ctx.resolve_awakeable(id, OK)

    @handler(name="rejectAwakeable")
    async def reject_awakeable(self, ctx: Context, id: str) -> None:
        await ctx.reject_awakeable(id, "error")

    @handler(name="incrementViaAwakeableDance")
    async def increment_via_awakeable_dance(self, ctx: Context, request: DanceRequest) -> None:
        answer = ctx.awakeable(str)
        await ctx.resolve_awakeable(request.tx_promise_id, answer.id)
        await answer
        await _send_increment(ctx, request.interpreter)


def _send_increment(ctx: Context, target: InterpreterId) -> Coroutine[Any, Any, Invocation[bytes]]:
    body = msgspec.json.encode(INCREMENT_ONCE)
    return ctx.send(f"ObjectInterpreterL{target.layer}", "interpret", body, key=target.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Something that a command has begun, and what it has to give."""

    expected: object
    result: Awaitable[object]

    async def check(self) -> None:
        try:
            result = await self.result
        except TerminalError:
            result = REJECTED
        _check(self.expected, result)


def _check(expected: object, result: object) -> None:
    if result != expected:
        raise TerminalError(f"Expected {expected} but got {result}")


class Interpreter(VirtualObject, abstract=True):
    """An object of a layer."""

    layer: int
    """Which one; each class has its own."""
    counter_value: int = state(default=0, name="counter")

    @handler
    async def interpret(self, ctx: ObjectContext, program: Program) -> None:
        """Run the program. What it never awaits is awaited at its end."""
        pending: dict[int, Pending] = {}
        for index, command in enumerate(program.commands):
            if command.kind is Kind.AWAIT:
                if command.index in pending:
                    await pending.pop(command.index).check()
                continue
            begun = await self._do(ctx, index, command)
            if begun is not None:
                pending[index] = begun
        for begun in pending.values():
            await begun.check()

    @shared_handler
    async def counter(self, ctx: SharedContext) -> int:
        return self.counter_value

    async def _do(self, ctx: ObjectContext, index: int, command: Command) -> Pending | None:
        """Do what a command says, or begin it."""
        helper = ctx.service(ServiceInterpreterHelper)
        own = InterpreterId(self.layer, self.key)
        name, text = f"key-{command.key}", f"hello-{index}"
        match command.kind:
            case Kind.SET:
                ctx.set(name, f"value-{command.key}")
            case Kind.GET:
                ctx.get(name, str)
            case Kind.CLEAR:
                ctx.clear(name)
            case Kind.INCREMENT:
                self.counter_value += 1
            case Kind.INCREMENT_INDIRECTLY:
                await helper.increment_indirectly.send(own)
            case Kind.SLEEP:
                await ctx.sleep(command.duration / 1000)
            case Kind.CALL:
                return Pending(expected=text, result=helper.echo(text))
            case Kind.CALL_SLOW:
                return Pending(expected=text, result=helper.echo_later(EchoLaterRequest(command.sleep, text)))
            case Kind.INCREMENT_VIA_DELAYED_CALL:
                await helper.increment_indirectly.after(command.duration / 1000).send(own)
            case Kind.RUN:
                _check(text, await ctx.run("side effect", _itself, text))
            case Kind.THROWING_RUN:
                await ctx.run("throwing side effect", _throw_at_random)
            case Kind.SLOW_RUN:
                await ctx.run("slow side effect", _take_a_moment)
            case Kind.RECOVER_TERMINAL_CALL:
                await Pending(expected=REJECTED, result=helper.terminal_failure()).check()
            case Kind.RECOVER_TERMINAL_MAYBE_UNAWAITED:
                return Pending(expected=REJECTED, result=helper.terminal_failure())
            case Kind.AWAIT:
                raise AssertionError("awaiting begins nothing")
            case Kind.RESOLVE_AWAKEABLE:
                awakeable = ctx.awakeable(str)
                await helper.resolve_awakeable.send(awakeable.id)
                return Pending(expected=OK, result=awakeable)
            case Kind.REJECT_AWAKEABLE:
                awakeable = ctx.awakeable(str)
                await helper.reject_awakeable.send(awakeable.id)
                return Pending(expected=REJECTED, result=awakeable)
            case Kind.INCREMENT_VIA_AWAKEABLE:
                answer = ctx.awakeable(str)
                await helper.increment_via_awakeable_dance.send(DanceRequest(own, answer.id))
                await ctx.resolve_awakeable(await answer, OK)
            case Kind.CALL_NEXT_LAYER:
                body = msgspec.json.encode(command.program or Program([]))
                next_layer = f"ObjectInterpreterL{self.layer + 1}"
                return Pending(expected=b"", result=ctx.call(next_layer, "interpret", body, key=str(command.key)))
        return None


class ObjectInterpreterL0(Interpreter):
    """The outermost layer."""

    layer = 0


class ObjectInterpreterL1(Interpreter):
    """What layer 0 calls."""

    layer = 1


class ObjectInterpreterL2(Interpreter):
    """What layer 1 calls."""

    layer = 2


def _itself(text: str) -> str:
    return text


def _throw_at_random() -> None:
    if random.random() < 0.5:
        raise RuntimeError("Random error")


async def _take_a_moment() -> None:
    await asyncio.sleep(0.001)
