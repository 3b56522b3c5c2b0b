"""A mailbox that grows is told of in time: at a share of its limit, at each doubling, and again when it fills anew."""

from __future__ import annotations

import pytest

from durably import Limits, MemoryStore, ObjectContext, OverloadedError, VirtualObject, handler
from durably.runtime.activations.activations import Activations
from durably.runtime.invocations.activation import Activation
from durably.testing import Harness


class Desk(VirtualObject):
    @handler
    async def sleep(self, ctx: ObjectContext) -> None:
        await ctx.sleep(60)

    @handler
    async def flood(self, ctx: ObjectContext, key: str, count: int) -> None:
        for _ in range(count):
            await ctx.object(Desk, key).sleep.send()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    heard: list[tuple[str, int]] = []
    begin = Activations.__init__

    def listen(self: Activations, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)  # type: ignore[arg-type]
        observer = self._observer  # pyright: ignore[reportPrivateUsage] - What it would tell.

        def hear(activation: Activation, waiting: int, limit: int) -> None:
            heard.append((f"{activation.address.key} of {limit}", waiting))

        monkeypatch.setattr(observer, "mailbox_is_long", hear, raising=False)

    monkeypatch.setattr(Activations, "__init__", listen)
    return heard


async def test_it_is_told_at_half_the_limit_and_at_each_doubling(told: list[tuple[str, int]]) -> None:
    async with Harness(Desk, limits=Limits(mailbox_messages=20)) as app:
        await app.object(Desk, "a").flood("d", 100)  # What handlers send is always accepted.
        await app.settle()
        assert told == [("d of 20", 10), ("d of 20", 20), ("d of 20", 40), ("d of 20", 80)]
        with pytest.raises(OverloadedError):
            await app.object(Desk, "d").sleep()
        await app.advance(hours=2)
        await app.object(Desk, "b").flood("d", 11)
        await app.settle()
        assert told[4:] == [("d of 20", 10)]
        await app.advance(hours=2)


async def test_a_mailbox_that_is_long_in_the_store_is_told_of_when_it_is_loaded(told: list[tuple[str, int]]) -> None:
    store = MemoryStore()
    async with Harness(Desk, store=store) as app:
        await app.object(Desk, "a").flood("d", 2_000)
        await app.settle()
        assert told == []
    async with Harness(Desk, store=store, limits=Limits(mailbox_messages=2_000)) as app:
        await app.advance(minutes=1)
        assert told == [("d of 2000", 1_999)]
        await app.kill("Desk")
