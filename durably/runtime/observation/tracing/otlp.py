"""`Tracing`: sends the spans of a runtime to a collector with OpenTelemetry's SDK, which is imported where it is used.

The SDK's environment variables hold: endpoint, protocol, headers, sampler, resource and the sizes of its queue. Spans
go out in a thread of the SDK; what does not fit its queue is dropped there, and the runtime never waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from typing_extensions import override

from durably.configuration.sections import HIDDEN, without_credentials, without_password
from durably.errors import DefinitionError
from durably.runtime.clock import Clock
from durably.runtime.observation.tracing.spans import Span, SpanObserver
from durably.runtime.observation.tracing.trace_context import (
    SAMPLED,
    TRACEPARENT,
    Parent,
    TraceHeaders,
    parsed,
    with_context,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]

SCOPE: Final = "durably"
SERVICE_NAME: Final = "durably"
"""Of the resource, where `OTEL_SERVICE_NAME` and the program say nothing."""
GRPC_PORT: Final = 4317
TRACES_PATH: Final = "/v1/traces"
FLUSH_SECONDS: Final = 5.0
"""How long a stopping runtime waits for the last spans to go out."""
ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
LOGGERS_OF_REQUESTS: Final = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "urllib3.connectionpool")
PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where the traces of a runtime go: `Runtime(tracing=Tracing("http://localhost:4317"))`. Needs the extra `tracing`.

    Without an endpoint the variables of OpenTelemetry say where (`OTEL_EXPORTER_OTLP_ENDPOINT`), else the collector of
    this machine. The protocol follows from the port: gRPC on 4317, HTTP elsewhere. `exporter` is one of the SDK's
    instead. Spans have no arguments and results of handlers and commands, unless `payloads` asks for them.
    """

    endpoint: str | None = None
    protocol: Protocol | None = None
    headers: Mapping[str, str] | None = None
    """For the collector, such as its token."""
    service_name: str | None = None
    exporter: SpanExporter | None = None
    payloads: bool = False

    def __post_init__(self) -> None:
        if self.endpoint is not None and not _is_url(self.endpoint):
            raise DefinitionError(
                "Tracing takes the URL of a collector, such as 'http://localhost:4317', not "
                f"{without_password(self.endpoint)!r}."
            )
        if self.protocol not in (None, "grpc", "http/protobuf"):
            raise DefinitionError(f"Tracing(protocol=...) is 'grpc' or 'http/protobuf', not {self.protocol!r}.")

    @override
    def __repr__(self) -> str:
        """Without what is secret: a password in the endpoint, and the headers."""
        endpoint = None if self.endpoint is None else without_password(self.endpoint)
        return (
            f"Tracing({endpoint!r}, protocol={self.protocol!r}, headers={'None' if self.headers is None else HIDDEN}, "
            f"service_name={self.service_name!r}, exporter={self.exporter!r}, payloads={self.payloads!r})"
        )


def _is_url(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def tracing_given(tracing: object) -> Tracing | None:
    """What `Runtime(tracing=...)` stands for."""
    if tracing is None or isinstance(tracing, Tracing):
        return tracing
    if isinstance(tracing, str):
        return Tracing(tracing)
    raise DefinitionError(
        f"Runtime(tracing=...) takes a Tracing or the URL of a collector, not {type(tracing).__name__}."
    )


def has_endpoint_variable() -> bool:
    """The environment says where traces go."""
    return any(os.environ.get(name) for name in ENDPOINT_VARIABLES)


def can_trace() -> bool:
    """The extra is installed."""
    try:
        import opentelemetry.sdk.trace
    except ModuleNotFoundError:
        return False
    return bool(opentelemetry.sdk.trace)


def is_disabled() -> bool:
    """The environment says that no program traces."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


class OpenTracing:
    """What `Tracing` is while a runtime runs."""

    def __init__(self, tracing: Tracing) -> None:
        """Raises:
        DefinitionError: a package of the extra `tracing` is missing.
        """
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        name = tracing.service_name or os.environ.get("OTEL_SERVICE_NAME")
        attributes = {"service.name": name or SERVICE_NAME}
        if name is None and "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            attributes = {}
        # It reads the variables of the environment: those of the resource and of the sampler.
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._resource = provider.resource
        self._sampler = provider.sampler
        self._processor = BatchSpanProcessor(_exporter(tracing) if tracing.exporter is None else tracing.exporter)
        self._payloads = tracing.payloads
        self.trace_headers = TraceHeaders(self.samples)

    def observer(self, clock: Clock) -> SpanObserver:
        """What hears of the spans."""
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        return SpanObserver(
            clock=clock,
            sampler=self.samples,
            tell=self._export(),
            enter=_enter,
            new_span_id=RandomIdGenerator().generate_span_id,
            shows_payloads=self._payloads,
        )

    def samples(self, trace_id: int, parent: Parent | None) -> bool:
        """Whether an invocation is recorded, as the sampler says."""
        from opentelemetry.context import Context
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        around = Context()
        if parent is not None:
            span = NonRecordingSpan(_span_context(parent.trace_id, parent.span_id, parent.flags, "", is_remote=True))
            around = set_span_in_context(span, around)
        decision = self._sampler.should_sample(around, trace_id, "durably.invocation").decision
        return decision is Decision.RECORD_AND_SAMPLE

    def entering(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers of a message from outside, with the span in which this program sends it, if there is one."""
        from opentelemetry.trace import get_current_span

        current = get_current_span().get_span_context()
        if not current.is_valid:
            return headers
        given = parsed(headers.get(TRACEPARENT, ""))
        if given is not None and given.trace_id != current.trace_id:  # The message is about another trace.
            return headers
        flags = current.trace_flags & SAMPLED
        return with_context(headers, current.trace_id, current.span_id, flags, current.trace_state.to_header())

    async def close(self) -> None:
        """Let the last spans out, for a while: a collector that does not answer holds up no stop."""
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not closed.done():
                closed.set_result(None)

        shut_down: Callable[[], object] = self._processor.shutdown

        def close() -> None:
            self._processor.force_flush()
            shut_down()
            with suppress(RuntimeError):  # The loop is closed; no task waits.
                loop.call_soon_threadsafe(end)

        Thread(target=close, name="durably-tracing", daemon=True).start()
        await asyncio.wait({closed}, timeout=FLUSH_SECONDS)

    def _export(self) -> Callable[[Span], None]:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanKind, Status, StatusCode

        kinds = {
            "server": SpanKind.SERVER, "client": SpanKind.CLIENT, "producer": SpanKind.PRODUCER,
            "internal": SpanKind.INTERNAL,
        }  # fmt: skip
        scope, resource, on_end = InstrumentationScope(SCOPE), self._resource, self._processor.on_end

        def export(span: Span) -> None:
            parent_id = span.parent_id
            on_end(
                ReadableSpan(
                    name=span.name,
                    context=_span_context(span.trace_id, span.span_id, SAMPLED, span.state),
                    parent=None if parent_id is None else _span_context(span.trace_id, parent_id, SAMPLED, span.state),
                    resource=resource,
                    attributes=span.attributes,
                    kind=kinds[span.kind],
                    status=Status() if span.error is None else Status(StatusCode.ERROR, span.error),
                    start_time=span.began_us * 1_000,
                    end_time=span.ended_us * 1_000,
                    instrumentation_scope=scope,
                )
            )

        return export


def _exporter(tracing: Tracing) -> SpanExporter:
    endpoint = tracing.endpoint or _endpoint_of_variables(tracing)
    headers: dict[str, str] | None = None if tracing.headers is None else dict(tracing.headers)
    if endpoint is not None:
        endpoint, credentials = without_credentials(endpoint)
        if credentials is not None:
            headers = {"authorization": credentials, **(headers or {})}
    try:
        if _protocol(tracing) == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

            insecure = None if endpoint is None else urlsplit(endpoint).scheme == "http"
            return GrpcExporter(endpoint=endpoint, insecure=insecure, headers=headers)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        if endpoint is not None and urlsplit(endpoint).path in ("", "/"):
            endpoint = endpoint.rstrip("/") + TRACES_PATH
        _hide_secrets_of(_said_endpoint(tracing))
        return HttpExporter(endpoint=endpoint, headers=headers)
    except ModuleNotFoundError as error:
        raise _missing(error) from error


def _hide_secrets_of(endpoint: str) -> None:
    """The exporter and its HTTP library log the query of a request, where some collectors want a key."""
    query = "?" + urlsplit(endpoint).query
    shown = without_password(query)
    if shown != query:
        for name in LOGGERS_OF_REQUESTS:
            logging.getLogger(name).addFilter(_Hiding(query, shown))


@dataclass(frozen=True, slots=True)
class _Hiding:
    """A filter of loggers; a logger that has an equal one already takes no second one."""

    hidden: str
    shown: str

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if self.hidden in message:
            record.msg, record.args = message.replace(self.hidden, self.shown), ()
        return True


def _said_endpoint(tracing: Tracing) -> str:
    """That of the program, or of the environment; empty: neither says one."""
    return tracing.endpoint or next(filter(None, map(os.environ.get, ENDPOINT_VARIABLES)), "")


def _endpoint_of_variables(tracing: Tracing) -> str | None:
    """The endpoint of the environment, where it has a password in it; else the exporter reads it itself."""
    of_traces, of_all = map(os.environ.get, ENDPOINT_VARIABLES)
    found = of_traces or of_all
    if not found or "@" not in found:
        return None
    if of_traces or _protocol(tracing) == "grpc":
        return found
    return found.rstrip("/") + TRACES_PATH


def _protocol(tracing: Tracing) -> Protocol:
    """What was asked for, or what the port of the endpoint says."""
    if tracing.protocol is not None:
        return tracing.protocol
    asked = next(filter(None, map(os.environ.get, PROTOCOL_VARIABLES)), None)
    if asked in ("grpc", "http/protobuf"):
        return "grpc" if asked == "grpc" else "http/protobuf"
    return "grpc" if urlsplit(_said_endpoint(tracing)).port == GRPC_PORT else "http/protobuf"


def _missing(error: ModuleNotFoundError) -> DefinitionError:
    return DefinitionError(
        f"Traces need the extra: pip install 'durably[tracing]' (there is no module {error.name!r})."
    )


def _enter(trace_id: int, span_id: int, flags: int, state: str) -> Mapping[str, Any]:
    """Make a span the current one of the task that runs; a task of its own ends with it."""
    from opentelemetry.context import attach
    from opentelemetry.trace import set_span_in_context

    from durably.runtime.observation.tracing.action_span import ActionSpan

    span = ActionSpan(_span_context(trace_id, span_id, flags, state))
    attach(set_span_in_context(span))
    return span.attributes


def _span_context(trace_id: int, span_id: int, flags: int, state: str, *, is_remote: bool = False) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    trace_state: Any = TraceState.from_header([state]) if state else None
    return SpanContext(trace_id, span_id, is_remote, TraceFlags(flags), trace_state)
