"""A runtime that writes down what it is asked and answers what it is told."""

from __future__ import annotations

import asyncio

from durably.actors.protocol.commands import CompleteAwakeable, SendSignal
from durably.errors import RuntimeStoppedError
from durably.ids import KeyScope
from durably.ingress.app import ServedRuntime
from durably.runtime.gateway.requests import (
    Acceptance,
    HandlerDescription,
    HandlerSchemas,
    InvocationRequest,
    Reply,
    ServiceDescription,
    ServiceSchemas,
)
from durably.runtime.messaging.event_feeds import EventReader
from durably.runtime.runtime import PubSub


def service(name: str, kind: str, *handlers: str, private: bool = False) -> ServiceDescription:
    """A service whose handlers are named so; one that begins with `_` is private."""
    return ServiceDescription(
        name=name,
        kind="object" if kind == "object" else "service",
        handlers=[
            HandlerDescription(
                name=handler,
                kind="exclusive",
                parameters={},
                returns="bool",
                private=handler[0] == "_",
                documentation="",
            )
            for handler in handlers
        ],
        private=private,
        documentation="",
    )


SERVICES = [
    service("CartObject", "object", "addTicket", "checkout", "send", "_sweep"),
    service("CheckoutService", "service", "handle", "send", "größe"),
    service("Hidden", "service", "run", private=True),
]


class FakeRuntime(ServedRuntime):
    """Answers every request with `reply` or `acceptance`, or raises `error`; with `gate`, not before it is set."""

    def __init__(self) -> None:
        self.calls: list[InvocationRequest] = []
        self.sends: list[InvocationRequest] = []
        self.questions: list[tuple[str, str | KeyScope]] = []
        self.completions: list[CompleteAwakeable] = []
        self.signals: list[SendSignal] = []
        self.reply = Reply(id="inv_1", body=b"true", content_type="application/json", failure=None, expires_at=None)
        self.acceptance = Acceptance(id="inv_2", previously_accepted=False, due=None)
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.was_cancelled = False
        self.is_serving = True

    @property
    def accepts_requests(self) -> bool:
        return self.is_serving

    @property
    def store_id(self) -> str:
        return "fake"

    @property
    def pubsub(self) -> PubSub:
        return PubSub()

    async def follow_events(self, stream: str | None = None, /, *, after: int | None = None) -> EventReader:
        raise RuntimeStoppedError("it has no events")

    def describe(self) -> list[ServiceDescription]:
        return SERVICES

    def describe_schemas(self) -> list[ServiceSchemas]:
        unknown = HandlerSchemas(body=None, is_required=False, result=None)
        return [
            ServiceSchemas(handlers={handler.name: unknown for handler in service.handlers}, components={})
            for service in SERVICES
        ]

    async def request_call(self, request: InvocationRequest, /) -> Reply:
        self.calls.append(request)
        if self.error is not None:
            raise self.error
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
        return self.reply

    async def request_completion(self, command: CompleteAwakeable, /) -> None:
        self.completions.append(command)
        if self.error is not None:
            raise self.error

    async def request_signal(self, command: SendSignal, /) -> None:
        self.signals.append(command)
        if self.error is not None:
            raise self.error

    async def request_send(self, request: InvocationRequest, /) -> Acceptance:
        self.sends.append(request)
        if self.error is not None:
            raise self.error
        return self.acceptance

    async def request_attach(self, which: str | KeyScope, /) -> Reply:
        return self._asked("attach", which)

    async def request_output(self, which: str | KeyScope, /) -> Reply:
        return self._asked("output", which)

    async def request_lookup(self, which: str | KeyScope, /) -> str:
        return self._asked("lookup", which).id

    def _asked(self, verb: str, which: str | KeyScope) -> Reply:
        self.questions.append((verb, which))
        if self.error is not None:
            raise self.error
        return self.reply
