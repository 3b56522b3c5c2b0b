"""`/metrics`, read by Prometheus's own parser, and whether a server is alive and ready."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from durably import (
    Context,
    MemoryStore,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    Service,
    TerminalError,
    VirtualObject,
    handler,
)
from durably.bearer_tokens import BearerTokens
from durably.runtime.commit.committer import Committer
from durably.runtime.observation.metrics import Histogram
from tests.semantics.support import World, turns

LIMITED = RetryPolicy(initial=0.001, max_attempts=2)


class Till(VirtualObject):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def pay(self, ctx: ObjectContext) -> None:
        await ctx.run("pay", self.world.act, "pay")


class Bank(Service):
    @handler(retry=LIMITED)
    async def fail(self, ctx: Context) -> None:
        raise ValueError("a bug")

    @handler
    async def refuse(self, ctx: Context) -> None:
        raise TerminalError("no money")

    @handler
    async def look(self, ctx: Context) -> int:
        return 1


@asynccontextmanager
async def administered(runtime: Runtime) -> AsyncGenerator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(runtime.asgi(admin=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client, runtime:
        yield client


async def samples(client: httpx.AsyncClient) -> Mapping[tuple[str, frozenset[str]], float]:
    """Each value of the page, by name and the values of its labels."""
    page = await client.get("/metrics")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain; version=")
    found: dict[tuple[str, frozenset[str]], float] = {}
    for family in text_string_to_metric_families(page.text):
        assert family.documentation
        assert family.type != "unknown"
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.values()))
            assert key not in found
            found[key] = sample.value
    return found


def at(name: str, *labels: str) -> tuple[str, frozenset[str]]:
    return name, frozenset(labels)


async def test_what_has_happened_is_counted_and_what_is_there_is_told() -> None:
    world = World()
    runtime = Runtime(MemoryStore(), [Till, Bank], dependencies={World: world}, metrics=True)
    async with administered(runtime) as client:
        for _ in range(3):
            await runtime.service(Bank).look()
        with pytest.raises(TerminalError):
            await runtime.service(Bank).refuse()
        with pytest.raises(PausedInvocationError):
            await runtime.service(Bank).fail()
        running = [await runtime.object(Till, "1").pay.send() for _ in range(3)]
        await turns()
        told = await samples(client)
        world.end("pay")
        await running[-1].result()
    assert told[at("durably_invocations_total", "Bank", "look", "completed")] == 3
    assert told[at("durably_invocations_total", "Bank", "refuse", "failed")] == 1
    assert told[at("durably_invocation_seconds_count", "Bank", "look")] == 3
    assert told[at("durably_invocation_seconds_bucket", "Bank", "look", "+Inf")] == 3
    assert told[at("durably_retries_total", "Bank", "fail")] == 1
    assert told[at("durably_pauses_total", "Bank", "fail")] == 1
    assert told[at("durably_paused_invocations")] == 1
    assert told[at("durably_mailbox_messages", "Till")] == 2
    assert told[at("durably_active_objects", "Till")] == 1
    assert told[at("durably_running_actions")] == 1
    assert told[at("durably_accepts_requests")] == 1
    assert told[at("durably_commit_seconds_count")] == told[at("durably_batch_transitions_count")] > 0
    assert told[at("durably_store_failures_total")] == 0


async def test_a_runtime_that_does_not_count_tells_what_is_there() -> None:
    async with administered(Runtime(MemoryStore(), [Bank])) as client:
        await client.get("/health")
        told = await samples(client)
    assert told[at("durably_accepts_requests")] == 1
    assert not [name for name, _ in told if name.endswith("_total")]


async def test_it_is_ready_while_it_takes_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(MemoryStore(), [Bank])

    def overloaded(_: Committer) -> str:
        return "too much is waiting"

    async with administered(runtime) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        monkeypatch.setattr(Committer, "refusal", overloaded)
        refused = await client.get("/ready")
        assert (refused.status_code, refused.json()["message"]) == (503, "too much is waiting")
        assert (await client.get("/health")).status_code == 200
        guarded = httpx.ASGITransport(BearerTokens(runtime.asgi(admin=True), ["hush"], open_paths={"/ready"}))
        async with httpx.AsyncClient(transport=guarded, base_url="http://localhost") as others:
            refused = await others.get("/ready")
            assert (refused.status_code, refused.json()["message"]) == (503, "the runtime is not ready")
    transport = httpx.ASGITransport(runtime.asgi(admin=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 503


def test_a_value_at_a_bound_is_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 8.0)
