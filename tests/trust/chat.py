"""A chat: rooms that know each message once, members who count what they have not read, and a digest each hour."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta

from durably import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.errors import RuntimeStoppedError, StoreUnavailableError
from durably.testing import ConnectionLostError, Faults, NobodyThereError, Simulation, Snapshots
from tests.trust.planting import App, planted

KEPT = 6
SEEN: set[str] = set()


class Room(VirtualObject, name="TrustRoom"):
    """What was said, the last of it in words."""

    members: list[str] = state(default=[])
    count: int = state(default=0)
    texts: list[str] = state(default=[])
    known: list[str] = state(default=[])
    by_time: dict[str, str] = state(default={})

    @handler
    async def join(self, ctx: ObjectContext, who: str) -> None:
        if who not in self.members or planted("who joins twice is there twice"):
            self.members.append(who)

    @handler
    async def post(self, ctx: ObjectContext, number: str, text: str) -> None:
        """Say something; `number` is the sender's own, so that it is said once."""
        if self._is_known(number):
            return
        if not planted("a repeated message is said again"):
            self.known.append(number)
            keep = 1 if planted("only the last message is known") else 40
            self.known = self.known[-keep:]
        self.count += 1
        if planted("messages are filed by time"):
            self.by_time[str(ctx.now())] = text
            self.count = len(self.by_time)
        self.texts.append(text)
        if not planted("a room keeps every word"):
            self.texts = self.texts[-KEPT:]
        for member in self.members:
            await ctx.object(Member, member).notify.send(1)

    def _is_known(self, number: str) -> bool:
        if planted("a global knows the messages"):
            if number in SEEN:
                return True
            SEEN.add(number)
            return False
        return number in self.known


class Member(VirtualObject, name="TrustMember"):
    """How much somebody has not read, and the digests that he got."""

    unread: int = state(default=0)
    total: int = state(default=0)
    read: int = state(default=0)
    digest_due: datetime | None = state(default=None)
    digested: int = state(default=0)

    @handler
    async def notify(self, ctx: ObjectContext, count: int) -> None:
        self.unread += count
        self.total += count
        if self.digest_due is None:
            self.digest_due = ctx.now() + timedelta(hours=1)
            if planted("the thread says who sends"):
                await ctx.object(Member, self.key).digest.after(hours=1 + threading.get_ident() * 0).send()
            else:
                await ctx.object(Member, self.key).digest.after(hours=1).send()

    @handler
    async def mark_read(self, ctx: ObjectContext, count: int) -> None:
        """Read so many."""
        read = self.unread if planted("all is read at once") else min(count, self.unread)
        self.unread -= read
        self.read += read if not planted("all is read at once") else count

    @handler
    async def digest(self, ctx: ObjectContext) -> None:
        due = self.digest_due
        assert due is not None
        too_early = ctx.now() <= due if planted("a digest waits for the next moment") else ctx.now() < due
        if too_early:
            return
        self.digested += 1
        if not planted("a member gets one digest"):
            self.digest_due = None

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.unread


NOT_SURE = (ConnectionLostError, NobodyThereError, StoreUnavailableError, RuntimeStoppedError)
WRITERS = ("ann", "bob")
POSTS = 4


def nobody_has_read_more_than_there_was(snapshots: Snapshots) -> None:
    for name, member in snapshots.of(Member).items():
        assert member.read + member.unread == member.total, name


async def program(sim: Simulation) -> None:
    """Two people write over a bad network and try again; each reads; digests come hour by hour."""
    sim.invariant(nobody_has_read_more_than_there_was)
    sim.bounded(Room, bytes=650)
    room = sim.object(Room, "hall")
    for writer in (*WRITERS, "ann"):
        await room.join(writer)

    async def write(name: str) -> None:
        client = sim.client(name, insists=False)
        for number in range(POSTS):
            while True:
                try:
                    await client.object(Room, "hall").post(f"{name} {number}", f"{name} says {number} and more of it")
                    break
                except NOT_SURE:
                    await sim.advance(1)
            if number == 1:
                seen = await sim.client(f"{name} reads").object(Member, name).look()
                await sim.client(f"{name} reads").object(Member, name).mark_read(seen)

    await asyncio.gather(*map(write, WRITERS))
    await sim.settle()
    await sim.advance(minutes=5)
    await sim.settle()
    said = len(WRITERS) * POSTS
    assert sim.snapshots[Room, "hall"].count == said, f"{sim.snapshots[Room, 'hall'].count} messages"
    for writer in WRITERS:
        assert sim.snapshots[Member, writer].total == said, f"{writer} has {sim.snapshots[Member, writer].total}"
    await sim.advance(hours=2)
    await sim.settle()
    before = sim.snapshots[Member, "ann"].digested
    assert before >= 1, "no digest came"
    await room.post("late", "late")
    await sim.advance(hours=26)
    await sim.settle()
    assert sim.snapshots[Member, "ann"].digested > before, "no second digest came"
    for number in range(6):
        await room.post(f"again {number}", "the same long sentence once again, word by word by word")


APP = App(
    name="chat",
    actors=(Room, Member),
    program=program,
    faults=Faults.any(without=Faults.clock_jumps()),
    bugs={
        "who joins twice is there twice": "logic",
        "a repeated message is said again": "client repeats",
        "only the last message is known": "client repeats",
        "messages are filed by time": "tie",
        "a room keeps every word": "growth",
        "a global knows the messages": "global",
        "all is read at once": "race",
        "a digest waits for the next moment": "tie",
        "a member gets one digest": "timer",
        "the thread says who sends": "guard",
    },
)
