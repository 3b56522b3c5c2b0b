"""`Engine`: the life of one incarnation of the machine, from an open store to the first failure of that store.

A failed commit ends it: everything it held is void, and a new one recovers from the store (rule X3). What it is made of
stands in `assembly`, what keeps it going in `pump`.
"""

from __future__ import annotations

from durably.runtime.engine.assembly import Surroundings, assemble
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.invocations.invocation import throw_away


class Engine:
    """Made by the supervisor for each incarnation."""

    def __init__(self, incarnation: Incarnation, around: Surroundings) -> None:
        self.incarnation = incarnation
        self.clock = around.clock
        self.settings = around.settings
        self.parts = assemble(incarnation, around)

    def start(self) -> None:
        """Recover in the background; requests are served meanwhile, through the same loads (rule T3)."""
        self.parts.subscriptions.start()
        self.parts.timers.take_over()
        self.parts.recovery.start()
        self.parts.retention.start()
        self.parts.event_retention.start()
        self.parts.schedules.start()
        self.parts.sources.start()

    def kill(self) -> None:
        """End the incarnation: what it held is void, and late callbacks find it dead (rule X3)."""
        self.incarnation.dead = True
        parts = self.parts
        for part in (
            parts.committer, parts.registry, parts.activations, parts.entry_reads, parts.passivation, parts.timers,
            parts.scheduled, parts.ended_journals, parts.retention, parts.event_retention, parts.schedules,
            parts.sources, parts.subscriptions, parts.background,
            parts.sliced_work, parts.named_limits, parts.setting_up,
        ):  # fmt: skip
            part.kill()
        for invocation in parts.registry.live.values():
            throw_away(invocation)
        parts.ready.clear()
        parts.idleness.changed()

    async def finish(self) -> None:
        """After `kill`: wait until nothing of it touches the store any more."""
        parts = self.parts
        for part in (
            parts.committer, parts.registry, parts.activations, parts.entry_reads, parts.scheduled,
            parts.ended_journals, parts.sources, parts.background,
        ):  # fmt: skip
            await part.finish()

    async def until_durable(self) -> None:
        """Wait until everything that is in the log now is on disk.

        Raises:
            StoreUnavailableError: it never will be, in this incarnation.
        """
        await self.parts.committer.until_durable()
