"""Services without state: calls by name and bytes, echoes, cancels and signals."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import msgspec

from durably import BytesSerde, Context, Invocation, Service, handler


class ProxyRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A message by name. `scope` and `limit_key` are taken and change nothing: they are no part of an identity here."""

    service_name: str
    handler_name: str
    message: list[int]
    virtual_object_key: str | None = None
    """None: the target is a service."""
    delay_millis: int | None = None
    idempotency_key: str | None = None
    scope: str | None = None
    limit_key: str | None = None

    def body(self) -> bytes:
        """Some clients write bytes with a sign."""
        return bytes(byte & 0xFF for byte in self.message)


class ManyCallsRequest(msgspec.Struct, frozen=True, rename="camel"):
    """One of many messages."""

    proxy_request: ProxyRequest
    one_way_call: bool
    await_at_the_end: bool


class Proxy(Service):
    """Calls whatever it is asked to."""

    @handler
    async def call(self, ctx: Context, request: ProxyRequest) -> list[int]:
        return list(await _call(ctx, request))

    @handler(name="oneWayCall")
    async def one_way_call(self, ctx: Context, request: ProxyRequest) -> str:
        return (await _send(ctx, request)).id

    @handler(name="manyCalls")
    async def many_calls(self, ctx: Context, requests: list[ManyCallsRequest]) -> None:
        awaited: list[Coroutine[Any, Any, bytes]] = []
        for one in requests:
            if one.one_way_call:
                await _send(ctx, one.proxy_request)
                continue
            call = _call(ctx, one.proxy_request)
            if one.await_at_the_end:
                awaited.append(call)
            else:
                call.close()  # It was issued and stands; its answer has no receiver.
        for call in awaited:
            await call


def _call(ctx: Context, request: ProxyRequest) -> Coroutine[Any, Any, bytes]:
    return ctx.call(
        request.service_name,
        request.handler_name,
        request.body(),
        key=request.virtual_object_key,
        idempotency_key=request.idempotency_key,
    )


def _send(ctx: Context, request: ProxyRequest) -> Coroutine[Any, Any, Invocation[bytes]]:
    return ctx.send(
        request.service_name,
        request.handler_name,
        request.body(),
        key=request.virtual_object_key,
        after=(request.delay_millis or 0) / 1000,
        idempotency_key=request.idempotency_key,
    )


class ResolveSignalRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A signal and its value."""

    invocation_id: str
    signal_name: str
    value: str


class RejectSignalRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A signal and why it fails."""

    invocation_id: str
    signal_name: str
    reason: str


class TestUtilsService(Service):
    """Utilities of the suites."""

    __test__ = False  # pytest takes it for a class of tests.

    @handler
    async def echo(self, ctx: Context, text: str) -> str:
        return text

    @handler(name="uppercaseEcho")
    async def uppercase_echo(self, ctx: Context, text: str) -> str:
        return text.upper()

    @handler(name="echoHeaders")
    async def echo_headers(self, ctx: Context) -> dict[str, str]:
        return dict(ctx.request.headers)

    @handler(name="rawEcho", accepts=BytesSerde(), returns=BytesSerde())
    async def raw_echo(self, ctx: Context, data: bytes) -> bytes:
        return data

    @handler(name="countExecutedSideEffects")
    async def count_executed_side_effects(self, ctx: Context, increments: int) -> int:
        """How many ran in this attempt: what a replay answers from the journal does not run."""
        executed = 0

        def bump() -> None:
            nonlocal executed
            executed += 1

        for _ in range(increments):
            await ctx.run("count", bump)
        return executed

    @handler(name="cancelInvocation")
    async def cancel_invocation(self, ctx: Context, id: str) -> None:
        await ctx.invocation(id).cancel()

    @handler(name="resolveSignal")
    async def resolve_signal(self, ctx: Context, request: ResolveSignalRequest) -> None:
        await ctx.invocation(request.invocation_id).signal(request.signal_name, request.value)

    @handler(name="rejectSignal")
    async def reject_signal(self, ctx: Context, request: RejectSignalRequest) -> None:
        await ctx.invocation(request.invocation_id).reject_signal(request.signal_name, request.reason)
