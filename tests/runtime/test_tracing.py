"""Traces: a span for each invocation, attempt and command, at real receivers; the context comes in, and goes out."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from durably import (
    Context,
    DefinitionError,
    ObjectContext,
    RetryPolicy,
    Runtime,
    Service,
    TerminalError,
    Tracing,
    VirtualObject,
    handler,
    state,
)
from durably.client import Client
from durably.runtime.observation.tracing.trace_context import parsed, written
from tests.otlp import COLLECTORS, Received, http_collector

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Seat(VirtualObject):
    is_taken: bool = state(default=False)

    @handler
    async def reserve(self, ctx: ObjectContext, who: str) -> dict[str, str]:
        self.is_taken = True
        return dict(ctx.request.headers)

    @handler
    async def release(self, ctx: ObjectContext) -> None:
        self.is_taken = False


class Tour(VirtualObject):
    failures = 0

    @handler
    async def buy(self, ctx: ObjectContext, who: str) -> dict[str, str]:
        headers = await ctx.object(Seat, "2B").reserve(who)
        await ctx.sleep(0.001)
        await ctx.run("charge", _charge)
        if Tour.failures:
            Tour.failures -= 1
            raise ValueError("a bug")
        awakeable = ctx.awakeable(str)
        await ctx.service(Till).pay(awakeable.id)
        await awakeable
        await ctx.object(Seat, "2B").release.send()
        return headers


class Till(Service):
    @handler
    async def pay(self, ctx: Context, id: str) -> None:
        await ctx.resolve_awakeable(id, "paid")

    @handler
    async def refuse(self, ctx: Context) -> None:
        raise TerminalError("no money", code=402)

    @handler
    async def span(self, ctx: Context) -> str:
        return await ctx.run("look", _current_span)


class Agent(Service):
    """Asks a language model, which fails once."""

    attempts = 0

    @handler
    async def answer(self, ctx: Context, question: str) -> str:
        return await ctx.run("chat", _chat, question)


async def _chat(question: str) -> str:
    span = trace.get_current_span()
    assert span.is_recording()
    Agent.attempts += 1
    if Agent.attempts == 1:
        span.set_attribute("gen_ai.response.finish_reasons", ["error"])
        raise ConnectionError("no answer")
    span.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.request.model": "small", "durably.service": "forged"})
    span.set_attribute("gen_ai.usage.output_tokens", 2)
    return "42"


def _charge() -> str:
    return "a secret receipt"


def _current_span() -> str:
    current = trace.get_current_span().get_span_context()
    return written(current.trace_id, current.span_id, current.trace_flags)


@asynccontextmanager
async def running(tracing: Tracing, **options: Any) -> AsyncGenerator[Runtime]:
    async with Runtime("memory:", [Tour, Seat, Till, Agent], tracing=tracing, **options) as runtime:
        yield runtime


def one(spans: list[Received]) -> Received:
    (found,) = spans
    return found


@pytest.mark.parametrize("protocol", COLLECTORS)
async def test_a_tour_is_one_span_for_each_invocation_attempt_and_command(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tour, "failures", 1)
    with COLLECTORS[protocol]() as collector:
        headers = {"x-token": "t"}
        tracing = Tracing(collector.endpoint, cast(Any, protocol), headers, service_name="shop")
        async with running(tracing, suspend_after=0, retry=RetryPolicy(initial=0.001)) as runtime:
            await runtime.object(Tour, "mary").buy.options(headers={"traceparent": REMOTE, "tracestate": "a=1"})("mary")
    assert collector.services == {"shop"}
    assert collector.metadata["x-token"] == "t"
    assert max(Counter(span.span_id for span in collector.spans).values()) == 1
    assert {(span.trace_id, span.state) for span in collector.spans} == {(REMOTE[3:35], "a=1")}
    tour = one(collector.of("invocation", "Tour/buy"))
    assert tour.parent_id == REMOTE[36:52]
    id = tour.attributes["durably.invocation.id"]
    ours = [span for span in collector.spans if span.attributes["durably.invocation.id"] == id]
    assert {span.parent_id for span in ours if span is not tour} == {tour.span_id}
    commands = [span for span in ours if span.what == "command"]
    commands.sort(key=lambda span: span.attributes["durably.command.number"])
    assert [span.name for span in commands] == [
        "durably.call Seat/reserve", "durably.sleep", "durably.run charge", "durably.awakeable",
        "durably.call Till/pay", "durably.send Seat/release",
    ]  # fmt: skip
    assert one(collector.of("invocation", "Seat/reserve")).parent_id == commands[0].span_id
    assert one(collector.of("invocation", "Till/pay")).parent_id == commands[4].span_id
    assert one(collector.of("invocation", "Seat/release")).parent_id == commands[5].span_id
    attempts = sorted((span for span in ours if span.what == "attempt"), key=lambda span: span.began_ns)
    results = [span.attributes["durably.attempt.result"] for span in attempts]
    assert results[-1] == "completed"
    assert results.count("failed") == 1
    assert set(results[:-1]) == {"suspended", "failed"}
    assert one([span for span in attempts if span.is_error]).error == "ValueError: a bug"
    assert [s for s in ours if not (tour.began_ns <= s.began_ns <= s.ended_ns <= tour.ended_ns)] == []
    assert "secret" not in repr(collector.spans)


async def test_an_outcome_that_is_an_error_is_the_status_of_its_span_and_of_the_call() -> None:
    with http_collector() as collector:
        async with running(Tracing(collector.endpoint)) as runtime:
            with pytest.raises(TerminalError):
                await runtime.service(Till).refuse()
    assert one(collector.of("invocation")).error == "TerminalError: no money"
    assert one(collector.of("attempt")).is_error


async def test_payloads_are_shown_where_they_are_asked_for() -> None:
    with http_collector() as collector:
        async with running(Tracing(collector.endpoint, payloads=True)) as runtime:
            await runtime.object(Tour, "mary").buy("mary")
    assert one(collector.of("command", "run charge")).attributes["durably.result"] == '"a secret receipt"'
    assert one(collector.of("invocation", "Tour/buy")).attributes["durably.argument"] == '{"who":"mary"}'


async def test_the_span_of_an_action_is_the_current_one_while_it_runs_and_that_of_the_host_is_the_parent() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("host")
    with http_collector() as collector:
        async with running(Tracing(collector.endpoint)) as runtime:
            with tracer.start_as_current_span("request") as around:
                seen = await runtime.service(Till).span()
    context = around.get_span_context()
    command, invocation = one(collector.of("command")), one(collector.of("invocation"))
    assert seen == f"00-{command.trace_id}-{command.span_id}-01"
    assert invocation.parent_id == f"{context.span_id:016x}"
    assert {span.trace_id for span in collector.spans} == {f"{context.trace_id:032x}"}


async def test_what_an_action_says_of_itself_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agent, "attempts", 0)
    with http_collector() as collector:
        async with running(Tracing(collector.endpoint), retry=RetryPolicy(initial=0.001)) as runtime:
            assert await runtime.service(Agent).answer("Why?") == "42"
    asked = one(collector.of("command", "run chat"))
    assert {name: value for name, value in asked.attributes.items() if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "small", "gen_ai.usage.output_tokens": 2,
    }  # fmt: skip
    assert asked.attributes["durably.command.type"] == "run"
    assert asked.attributes["durably.service"] == "Agent"
    assert [one for one in collector.spans if one is not asked and "gen_ai" in repr(one.attributes)] == []


async def test_over_http_the_span_of_the_client_and_the_header_of_a_request_are_the_parents() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("client")
    with http_collector() as collector:
        async with running(Tracing(collector.endpoint)) as runtime:
            transport = httpx.ASGITransport(runtime.asgi())
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                await http.post("/Till/span", headers={"traceparent": REMOTE})
                async with Client("http://test", http=http) as client:
                    with tracer.start_as_current_span("request") as around:
                        await client.service(Till).span()
    parents = {span.parent_id for span in collector.of("invocation")}
    assert parents == {REMOTE[36:52], f"{around.get_span_context().span_id:016x}"}


@pytest.mark.parametrize("flags", ["00", "01"])
async def test_what_the_caller_does_not_sample_is_not_sampled_and_callees_are_told(flags: str) -> None:
    with http_collector() as collector:
        async with running(Tracing(collector.endpoint)) as runtime:
            buy = runtime.object(Tour, "mary").buy.options(headers={"traceparent": f"{REMOTE[:-2]}{flags}"})
            seen = await buy("mary")
    assert seen["traceparent"][:36] == REMOTE[:36]
    assert seen["traceparent"][-2:] == flags
    assert bool(collector.spans) == (flags == "01")


async def test_without_tracing_no_header_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with running(Tracing("http://localhost:1")) as runtime:
        assert await runtime.object(Tour, "mary").buy("mary") == {}


async def test_a_collector_that_does_not_answer_holds_up_no_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("durably.runtime.observation.tracing.otlp.FLUSH_SECONDS", 0.05)
    async with asyncio.timeout(30):
        async with running(Tracing("http://127.0.0.1:9")) as runtime:
            await runtime.object(Tour, "mary").buy("mary")


@pytest.mark.parametrize("protocol", COLLECTORS)
async def test_a_password_in_the_endpoint_goes_to_the_collector_as_a_header_and_nowhere_else(
    protocol: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with COLLECTORS[protocol]() as collector:
        endpoint = collector.endpoint.replace("http://", "http://ann:h%75sh@")
        tracing = Tracing(endpoint, protocol=protocol, headers={"x-key": "hush"})
        assert "h%75sh" not in repr(tracing)
        assert "hush" not in repr(tracing)
        async with running(tracing) as runtime:
            await runtime.object(Tour, "mary").buy("mary")
        assert collector.metadata["authorization"] == f"Basic {b64encode(b'ann:hush').decode()}"
        assert collector.metadata["x-key"] == "hush"
    # Where no collector answers, the exporter says so.
    async with running(Tracing("http://ann:hush@127.0.0.1:9", protocol=protocol)) as runtime:
        await runtime.object(Tour, "mary").buy("mary")
    assert collector.spans
    assert "h%75sh" not in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize("protocol", COLLECTORS)
@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
async def test_so_does_one_in_a_variable_of_opentelemetry(
    protocol: str, variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with COLLECTORS[protocol]() as collector:
        path = "/v1/traces" if "TRACES" in variable and protocol != "grpc" else ""
        monkeypatch.setenv(variable, collector.endpoint.replace("://", "://ann:hush@") + path)
        async with running(Tracing()) as runtime:
            await runtime.object(Tour, "mary").buy("mary")
        assert collector.spans
        assert collector.metadata["authorization"] == f"Basic {b64encode(b'ann:hush').decode()}"
    assert "hush" not in caplog.text


@pytest.mark.parametrize("variable", [None, "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
async def test_a_key_in_the_query_of_an_endpoint_is_not_logged(
    variable: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setattr("durably.runtime.observation.tracing.otlp.FLUSH_SECONDS", 0.05)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    endpoint = "http://127.0.0.1:9/v1/traces?team=a&api_key=hush"
    if variable is not None:
        monkeypatch.setenv(variable, endpoint)
    async with (
        asyncio.timeout(60),
        running(Tracing(None if variable else endpoint, protocol="http/protobuf")) as runtime,
    ):
        await runtime.object(Tour, "mary").buy("mary")
        while "Transient error" not in caplog.text:  # Said by a thread of the exporter.
            await asyncio.sleep(0.02)
    assert "team=a&api_key=***" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize(
    "endpoint",
    ["mysql://ann:hush@h", "ann:hush@h:4317", "http://ann:hush@[::1", "http://ann:hush@h:x", "http://ann:hush@"],
)
def test_no_password_is_told_of_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(DefinitionError, match=r"URL of a collector.*\*\*\*") as refused:
        Tracing(endpoint)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("tracing", ["localhost:4317", 4317, True])
def test_what_is_no_endpoint_is_refused(tracing: Any) -> None:
    with pytest.raises(DefinitionError, match=r"(?i)URL of a collector"):
        Runtime("memory:", [Till], tracing=tracing)


_ids = st.integers(1, 2**128 - 1)


@given(_ids, st.integers(1, 2**64 - 1), st.sampled_from([0, 1]))
def test_a_context_that_is_written_is_read(trace_id: int, span_id: int, flags: int) -> None:
    assert parsed(written(trace_id, span_id, flags)) == (trace_id, span_id, flags)


@pytest.mark.parametrize(
    "traceparent",
    [
        "", "x", REMOTE.upper(), REMOTE + "-more", f"{REMOTE}\n{REMOTE}", "ff" + REMOTE[2:], REMOTE[:-1],
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)  # fmt: skip
def test_what_is_no_context_begins_a_trace_anew(traceparent: str) -> None:
    assert parsed(traceparent) is None


def test_a_context_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parsed("cc" + REMOTE[2:] + "-what-comes") == parsed(REMOTE)
    assert parsed(REMOTE[:-2] + "ff") == parsed(REMOTE)
