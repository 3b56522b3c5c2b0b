"""An object that interprets commands: awakeables, sleeps, runs and signals, one by one or combined."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import Any, assert_never

import msgspec

from durably import (
    ObjectContext,
    SharedContext,
    TerminalError,
    VirtualObject,
    first_success,
    handler,
    select,
    settled,
    shared,
    state,
)
from tests.conformance.waiting_services import NO_AWAKEABLE

TIMED_OUT = "await-timeout"


class CreateAwakeable(msgspec.Struct, frozen=True, rename="camel", tag="createAwakeable"):
    """An awakeable, whose id is kept for the handlers that complete it."""

    awakeable_key: str


class Sleep(msgspec.Struct, frozen=True, rename="camel", tag="sleep"):
    """Its result is `sleep`."""

    timeout_millis: int


class RunReturns(msgspec.Struct, frozen=True, rename="camel", tag="runReturns"):
    """A run that works for a moment."""

    value: str


class RunThrowTerminalException(msgspec.Struct, frozen=True, rename="camel", tag="runThrowTerminalException"):
    """A run that fails for good."""

    reason: str


class CreateSignal(msgspec.Struct, frozen=True, rename="camel", tag="createSignal"):
    """The next signal of this name."""

    signal_name: str


AwaitableCommand = CreateAwakeable | Sleep | RunReturns | RunThrowTerminalException | CreateSignal


class AwaitOne(msgspec.Struct, frozen=True, tag="awaitOne"):
    """One of them."""

    command: AwaitableCommand


class AwaitAny(msgspec.Struct, frozen=True, tag="awaitAny"):
    """The first to complete, which may fail."""

    commands: list[AwaitableCommand]


class AwaitFirstCompleted(msgspec.Struct, frozen=True, tag="awaitFirstCompleted"):
    """The same by its newer name."""

    commands: list[AwaitableCommand]


class AwaitAnySuccessful(msgspec.Struct, frozen=True, tag="awaitAnySuccessful"):
    """The first to succeed."""

    commands: list[AwaitableCommand]


class AwaitFirstSucceededOrAllFailed(msgspec.Struct, frozen=True, tag="awaitFirstSucceededOrAllFailed"):
    """The same by its newer name."""

    commands: list[AwaitableCommand]


class AwaitAllSucceededOrFirstFailed(msgspec.Struct, frozen=True, tag="awaitAllSucceededOrFirstFailed"):
    """All values, or the first failure."""

    commands: list[AwaitableCommand]


class AwaitAllCompleted(msgspec.Struct, frozen=True, tag="awaitAllCompleted"):
    """All values and failures."""

    commands: list[AwaitableCommand]


class AwaitAwakeableOrTimeout(msgspec.Struct, frozen=True, rename="camel", tag="awaitAwakeableOrTimeout"):
    """An awakeable that has a time limit."""

    awakeable_key: str
    timeout_millis: int


class ResolveAwakeable(msgspec.Struct, frozen=True, rename="camel", tag="resolveAwakeable"):
    """Completes an awakeable that was created under this key."""

    awakeable_key: str
    value: str


class RejectAwakeable(msgspec.Struct, frozen=True, rename="camel", tag="rejectAwakeable"):
    """Lets it fail."""

    awakeable_key: str
    reason: str


class GetEnvVariable(msgspec.Struct, frozen=True, rename="camel", tag="getEnvVariable"):
    """What the environment of the process says."""

    env_name: str


Command = (
    AwaitOne
    | AwaitAny
    | AwaitFirstCompleted
    | AwaitAnySuccessful
    | AwaitFirstSucceededOrAllFailed
    | AwaitAllSucceededOrFirstFailed
    | AwaitAllCompleted
    | AwaitAwakeableOrTimeout
    | ResolveAwakeable
    | RejectAwakeable
    | GetEnvVariable
)


class InterpretRequest(msgspec.Struct, frozen=True):
    """A program."""

    commands: list[Command]


class VirtualObjectCommandInterpreter(VirtualObject):
    """Runs programs, and keeps the result of each of their commands."""

    results: list[str] = state(default=[])

    @handler(name="interpretCommands")
    async def interpret_commands(self, ctx: ObjectContext, request: InterpretRequest) -> str:
        result = ""
        for command in request.commands:
            result = await _interpret(ctx, command)
            self.results.append(result)
        return result

    @shared(name="resolveAwakeable")
    async def resolve_awakeable(self, ctx: SharedContext, request: ResolveAwakeable) -> None:
        await _resolve(ctx, request)

    @shared(name="rejectAwakeable")
    async def reject_awakeable(self, ctx: SharedContext, request: RejectAwakeable) -> None:
        await _reject(ctx, request)

    @shared(name="hasAwakeable")
    async def has_awakeable(self, ctx: SharedContext, awakeable_key: str) -> bool:
        return ctx.get(_stored_name(awakeable_key), str) is not None

    @shared(name="getResults")
    async def get_results(self, ctx: SharedContext) -> list[str]:
        return self.results


async def _interpret(ctx: ObjectContext, command: Command) -> str:
    """The result of a command, which is empty where it has none."""
    match command:
        case AwaitOne():
            return _text(await _start(ctx, command.command))
        case AwaitAny() | AwaitFirstCompleted():
            return _text((await select(**_racers(ctx, command.commands)))[1])
        case AwaitAnySuccessful() | AwaitFirstSucceededOrAllFailed():
            return _text((await first_success(**_racers(ctx, command.commands)))[1])
        case AwaitAllSucceededOrFirstFailed():
            results = await asyncio.gather(*_start_all(ctx, command.commands).values())
            return "|".join(map(_text, results))
        case AwaitAllCompleted():
            ended = await settled(**_start_all(ctx, command.commands))
            return "|".join(map(_ending, ended.values()))
        case AwaitAwakeableOrTimeout():
            return await _awakeable_or_timeout(ctx, command)
        case ResolveAwakeable():
            await _resolve(ctx, command)
            return ""
        case RejectAwakeable():
            await _reject(ctx, command)
            return ""
        case GetEnvVariable():
            return await ctx.run("read the environment", os.environ.get, command.env_name, "")
        case _:
            assert_never(command)


def _racers(ctx: ObjectContext, commands: list[AwaitableCommand]) -> dict[str, Awaitable[str | None]]:
    if not commands:
        raise TerminalError("None of no commands can be the first", code=400)
    return _start_all(ctx, commands)


def _start_all(ctx: ObjectContext, commands: list[AwaitableCommand]) -> dict[str, Awaitable[str | None]]:
    return {f"command {index}": _start(ctx, command) for index, command in enumerate(commands)}


def _start(ctx: ObjectContext, command: AwaitableCommand) -> Awaitable[str | None]:
    """Issued now, awaited later."""
    match command:
        case CreateAwakeable():
            awakeable = ctx.awakeable(str)
            ctx.set(_stored_name(command.awakeable_key), awakeable.id)
            return awakeable
        case Sleep():
            return ctx.sleep(command.timeout_millis / 1000)
        case RunReturns():
            return ctx.run("return", _return_later, command.value)
        case RunThrowTerminalException():
            return ctx.run("fail", _fail, command.reason)
        case CreateSignal():
            return ctx.signal(command.signal_name, str)
        case _:
            assert_never(command)


async def _awakeable_or_timeout(ctx: ObjectContext, command: AwaitAwakeableOrTimeout) -> str:
    awakeable = ctx.awakeable(str)
    ctx.set(_stored_name(command.awakeable_key), awakeable.id)
    try:
        async with asyncio.timeout(command.timeout_millis / 1000):
            return await awakeable
    except TimeoutError:
        raise TerminalError(TIMED_OUT) from None


async def _resolve(ctx: SharedContext, command: ResolveAwakeable) -> None:
    await ctx.resolve_awakeable(_stored_id(ctx, command.awakeable_key), command.value)


async def _reject(ctx: SharedContext, command: RejectAwakeable) -> None:
    await ctx.reject_awakeable(_stored_id(ctx, command.awakeable_key), command.reason)


def _stored_id(ctx: SharedContext, awakeable_key: str) -> str:
    id = ctx.get(_stored_name(awakeable_key), str)
    if id is None:
        raise TerminalError(NO_AWAKEABLE)
    return id


def _stored_name(awakeable_key: str) -> str:
    return f"awk-{awakeable_key}"


def _text(value: str | None) -> str:
    """A sleep alone has no value."""
    return "sleep" if value is None else value


def _ending(result: Any) -> str:
    if not isinstance(result, BaseException):
        return f"ok:{_text(result)}"
    if not isinstance(result, TerminalError):
        raise result
    return f"err:{result.message}"


async def _return_later(value: str) -> str:
    await asyncio.sleep(0.001)
    return value


def _fail(reason: str) -> str:
    raise TerminalError(reason)
