"""Which headers go on with the calls of a handler, and how a handler sees those that came."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably import Context, Runtime, Service, handler
from durably.actors.headers import Forwarding, apart, forwarding, is_of_one_message, joined
from durably.ingress import Ingress
from durably.storage.memory import MemoryStore
from durably.testing import Harness

FORWARDED = ["x-tenant", "authorization", "accept-language", "cookie"]
NEVER = ["content-type", "content-length", "host", "connection", "idempotency-key", "traceparent", "x-restate-id", "te"]


class Last(Service):
    """Says what came with it."""

    @handler
    async def headers(self, ctx: Context) -> dict[str, str]:
        return dict(ctx.request.headers)

    @handler
    async def values(self, ctx: Context) -> dict[str, list[str]]:
        return {name: list(values) for name, values in ctx.request.attempt_headers.items()}


class Quiet(Service):
    """Its class says nothing of forwarding."""

    @handler
    async def call(self, ctx: Context) -> dict[str, str]:
        await ctx.sleep(1)
        return await ctx.service(Last).headers.options(headers={"x-own": "mine", "x-tenant": "green"})()

    @handler
    async def call_by_name(self, ctx: Context) -> str:
        return (await ctx.call("Last", "headers")).decode()

    @handler
    async def send(self, ctx: Context) -> dict[str, str]:
        return await (await ctx.service(Last).headers.send()).result()

    @handler
    async def send_on(self, ctx: Context) -> dict[str, str]:
        sent = await ctx.service(Last).headers.options(forward_headers=["Cookie"], headers={"x-own": "mine"}).send()
        return await sent.result()

    @handler
    async def call_bare(self, ctx: Context) -> dict[str, str]:
        return await ctx.service(Last).headers.options(forward_headers=False)()

    @handler
    async def values(self, ctx: Context) -> dict[str, list[str]]:
        return await ctx.service(Last).values.options(forward_headers=True)()


class Loud(Quiet, forward_headers=True):
    """Forwards everything."""


class Choosy(Quiet, forward_headers=["X-Tenant", "cookie"]):
    """Forwards some."""


class Mute(Quiet, forward_headers=False):
    """Forwards nothing, whatever the runtime says."""


INCOMING = {name: f"value of {name}" for name in [*FORWARDED, *NEVER]}
ALL = {name: INCOMING[name] for name in FORWARDED}


@pytest.mark.parametrize(
    ("actor", "runtime_says", "expected"),
    [
        (Quiet, None, {}),
        (Quiet, True, ALL),
        (Quiet, ["cookie"], {"cookie": INCOMING["cookie"]}),
        (Loud, None, ALL),
        (Loud, False, ALL),
        (Choosy, True, {"x-tenant": INCOMING["x-tenant"], "cookie": INCOMING["cookie"]}),
        (Mute, True, {}),
    ],
)
async def test_the_class_says_what_goes_on_and_else_the_runtime_and_explicit_headers_win(
    actor: type[Quiet], runtime_says: bool | list[str] | None, expected: Mapping[str, str]
) -> None:
    async with Harness(actor, Last, forward_headers=runtime_says) as app:
        reference = app.service(actor)
        begun = await reference.call.options(headers=INCOMING).send()
        await app.settle()
        await app.crash()  # What is forwarded is what was stored.
        await app.advance(1)
        assert await begun.result() == {**expected, "x-own": "mine", "x-tenant": "green"}
        assert await reference.send.options(headers=INCOMING)() == {}
        assert await reference.call_bare.options(headers=INCOMING)() == {}
        assert await reference.send_on.options(headers=INCOMING)() == {"cookie": INCOMING["cookie"], "x-own": "mine"}


async def test_calls_by_name_carry_them_too() -> None:
    async with Harness(Loud, Last) as app:
        assert "green" in await app.service(Loud).call_by_name.options(headers={"x-tenant": "green"})()


async def test_a_journal_holds_when_the_setting_changes_meanwhile() -> None:
    store = MemoryStore()
    async with Runtime(store, [Quiet, Last], drain=0) as runtime:
        begun = await runtime.service(Quiet).call.options(headers=INCOMING).send()
    async with Runtime(store, [Quiet, Last], forward_headers=True) as runtime:
        found = runtime.invocation(begun.id, dict[str, str])
        assert (await found.result())["cookie"] == INCOMING["cookie"]


async def test_a_repeated_header_arrives_joined_and_apart_and_is_forwarded_whole() -> None:
    async with Runtime(MemoryStore(), [Quiet, Last]) as runtime:
        transport = httpx.ASGITransport(Ingress(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            sent = [("x-tag", "a, b"), ("x-tag", "c"), ("x-one", "d")]
            assert (await client.post("/Last/headers", headers=sent)).json()["x-tag"] == "a, b, c"
            for path in ("/Last/values", "/Quiet/values"):
                values = (await client.post(path, headers=sent)).json()
                assert (values["x-tag"], values["x-one"]) == (["a, b", "c"], ["d"])


@given(
    some.dictionaries(
        some.text(some.characters(codec="latin-1", exclude_characters="\n\r\x00"), min_size=1),
        some.lists(some.text(some.characters(codec="latin-1", exclude_characters="\n\r\x00")), min_size=1),
    )
)
def test_every_header_is_seen_as_it_came(values: dict[str, list[str]]) -> None:
    stored = {name: "\n".join(all_of_one) for name, all_of_one in values.items()}
    assert apart(stored) == {name: tuple(all_of_one) for name, all_of_one in values.items()}
    assert joined(stored) == {name: ", ".join(all_of_one) for name, all_of_one in values.items()}


@given(
    some.dictionaries(some.sampled_from([*FORWARDED, *NEVER]), some.text()),
    some.none() | some.frozensets(some.sampled_from(FORWARDED)),
    some.dictionaries(some.sampled_from([*FORWARDED, *NEVER]), some.text()),
)
def test_nothing_about_one_message_is_forwarded_and_what_was_given_wins(
    incoming: dict[str, str], names: frozenset[str] | None, explicit: dict[str, str]
) -> None:
    outgoing = Forwarding(names).add(incoming, explicit)
    assert explicit.items() <= outgoing.items()
    for name in outgoing.keys() - explicit.keys():
        assert outgoing[name] == incoming[name]
        assert not is_of_one_message(name)
        assert names is None or name in names


@given(some.lists(some.sampled_from(FORWARDED)), some.sampled_from([", ", ",", "\n", " ,\t"]))
def test_what_the_connection_header_names_is_of_that_connection(named: list[str], between: str) -> None:
    incoming = {**INCOMING, "connection": between.join(["close", *map(str.upper, named)])}
    assert Forwarding(None).add(incoming, {}) == {name: ALL[name] for name in FORWARDED if name not in named}
    assert Forwarding(frozenset(FORWARDED)).add(incoming, {"cookie": "own"})["cookie"] == "own"


async def test_what_the_connection_header_names_reaches_no_handler() -> None:
    async with Runtime(MemoryStore(), [Last]) as runtime:
        transport = httpx.ASGITransport(Ingress(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            sent = {"connection": "close, X-Hop, content-length", "x-hop": "a", "x-end": "b"}
            seen = (await client.post("/Last/headers", headers=sent)).json()
            assert seen["x-end"] == "b"
            assert "x-hop" not in seen
            assert "connection" not in seen


@pytest.mark.parametrize("given", ["x-tenant", 7, [""], [1], ["Content-Type"], ["X-Restate-Id"], ["HOST"]])
def test_what_cannot_be_forwarded_is_refused_with_its_name(given: object) -> None:
    with pytest.raises((TypeError, ValueError), match="somewhere"):
        forwarding(given, "somewhere")


async def test_names_that_differ_in_their_case_are_one_header_that_came_twice() -> None:
    async with Harness(Quiet, Last) as app:
        headers = {"X-Tag": "a", "x-tag": "b", "x-one": "c"}
        assert await app.service(Last).headers.options(headers=headers)() == {"x-tag": "a, b", "x-one": "c"}
        values = {"x-tag": ["a", "b"], "x-one": ["c"]}
        assert await app.service(Last).values.options(headers=headers)() == values
        assert await app.service(Quiet).values.options(headers=headers)() == values


@pytest.mark.parametrize("headers", [{"a": "x\ny"}, {"a\r": "x"}])
async def test_a_header_of_several_lines_is_refused(headers: dict[str, str]) -> None:
    async with Harness(Last) as app:
        with pytest.raises(TypeError, match="line break"):
            await app.service(Last).headers.options(headers=headers)()
