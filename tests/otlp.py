"""Receivers of OTLP, over gRPC and HTTP: what a collector is to a program that sends traces."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass(frozen=True, kw_only=True)
class Received:
    """A span, as it came. Ids are hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    began_ns: int
    ended_ns: int
    is_error: bool
    error: str
    attributes: Mapping[str, Any]

    @property
    def what(self) -> str:
        return str(self.attributes["durably.span"])


@dataclass
class Collector:
    """What has come so far."""

    endpoint: str = ""
    spans: list[Received] = field(default_factory=list[Received])
    services: set[str] = field(default_factory=set[str])
    metadata: dict[str, str] = field(default_factory=dict[str, str])

    def take(self, request: ExportTraceServiceRequest, metadata: Mapping[str, str]) -> None:
        self.metadata.update(metadata)
        for resource in request.resource_spans:
            described = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.services.add(described["service.name"])
            for scope in resource.scope_spans:
                assert scope.scope.name == "durably"
                self.spans += [
                    Received(
                        name=one.name, trace_id=one.trace_id.hex(), span_id=one.span_id.hex(),
                        parent_id=one.parent_span_id.hex(), state=one.trace_state, kind=one.kind,
                        began_ns=one.start_time_unix_nano, ended_ns=one.end_time_unix_nano,
                        is_error=one.status.code == Status.STATUS_CODE_ERROR, error=one.status.message,
                        attributes={
                            pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
                            for pair in one.attributes
                        },
                    )
                    for one in scope.spans
                ]  # fmt: skip

    def of(self, what: str, name: str = "") -> list[Received]:
        """The invocations, attempts or commands."""
        return [span for span in self.spans if span.what == what and span.name.endswith(name)]


@contextmanager
def grpc_collector() -> Generator[Collector]:
    collector = Collector()

    def export(request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        collector.take(request, {str(key): str(value) for key, value in context.invocation_metadata()})
        return ExportTraceServiceResponse()

    handler = grpc.method_handlers_generic_handler(
        EXPORT.split("/")[1],
        {
            EXPORT.split("/")[2]: grpc.unary_unary_rpc_method_handler(
                export,
                request_deserializer=ExportTraceServiceRequest.FromString,
                response_serializer=ExportTraceServiceResponse.SerializeToString,
            )
        },
    )
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[handler])
        collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(None).wait()


@contextmanager
def http_collector() -> Generator[Collector]:
    collector = Collector()

    class Exports(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = decompress(body)
            metadata = {key.lower(): value for key, value in self.headers.items()}
            collector.take(ExportTraceServiceRequest.FromString(body), metadata)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Exports)
    collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


COLLECTORS: dict[str, Callable[[], Any]] = {"grpc": grpc_collector, "http/protobuf": http_collector}
