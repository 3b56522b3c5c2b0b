"""`InFlight`: how many messages of a subscription wait or run, so that it stops at a limit (rule P2).

Paused ones, and those of their key, which wait behind them, do not count: they are rows, and others go on. What an
earlier incarnation has left is counted as what this one delivers.
"""

from __future__ import annotations

from collections.abc import Iterable

from durably.actors.definition.binding import BoundActorHandler
from durably.ids import InvocationStatus
from durably.runtime.invocations.invocation import InvocationRun
from durably.storage.records import OpenMessages


class InFlight:
    """The messages of one subscription, by key."""

    __slots__ = ("_by_key", "_held_up", "counted")

    def __init__(self) -> None:
        self._by_key: dict[str, int] = {}
        self._held_up: set[str] = set()
        """Keys whose messages wait behind a paused one; they do not count."""
        self.counted = 0

    def add(self, key: str) -> None:
        self._by_key[key] = self._by_key.get(key, 0) + 1
        self.counted += key not in self._held_up

    def take_over(self, left: Iterable[OpenMessages]) -> None:
        """What an earlier incarnation has left, before anything of it goes on."""
        for one in left:
            self._by_key[one.key] = one.count
            if one.is_held_up:
                self._held_up.add(one.key)
            else:
                self.counted += one.count

    def pause_changed(self, invocation: InvocationRun) -> None:
        """What holds its messages up is paused from now on, or is so no longer."""
        if invocation.status is InvocationStatus.PAUSED:
            self.pause(invocation.address.key)
        else:
            self.resume(invocation.address.key)

    def pause(self, key: str) -> None:
        """What has its turn at the key waits for a person."""
        if key not in self._held_up:
            self._held_up.add(key)
            self.counted -= self._by_key.get(key, 0)

    def resume(self, key: str) -> None:
        """It goes on."""
        if key in self._held_up:
            self._held_up.discard(key)
            self.counted += self._by_key.get(key, 0)

    def end(self, key: str, *, was_first: bool) -> None:
        """One has ended, which may be of an earlier incarnation. If it had its turn, nothing before it is paused."""
        if was_first:
            self.resume(key)
        count = self._by_key.pop(key, 0)
        if count:
            self.counted -= key not in self._held_up
        if count > 1:
            self._by_key[key] = count - 1


def holds_up(invocation: InvocationRun, handler: BoundActorHandler) -> bool:
    """Messages to the handler at its key wait behind it, whichever handler it runs, or it is one of them."""
    if invocation.address.service != handler.service:
        return False
    return invocation.handler is handler or invocation.activation.current is invocation


def is_open_message(invocation: InvocationRun) -> bool:
    """The store counts it among `OpenMessages` of its handler."""
    return invocation.is_from_outside and invocation.scope is None and invocation.keep_outcome_us is None
