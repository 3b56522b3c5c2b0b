"""`Waiters`: the callers outside who wait for the outcome of an invocation, in memory or in the store only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from durably.runtime.execution.step import Outcome


class Waiter(Protocol):
    """One caller outside."""

    @property
    def id(self) -> str:
        """Of the invocation that it waits for."""
        ...

    def answer(self, outcome: Outcome, expires_at: int | None, cause: BaseException | None = None, /) -> None: ...
    def refuse(self, error: BaseException, /) -> None: ...
    def done(self) -> bool: ...


class Waiters:
    """By invocation number."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[int, list[Waiter]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([waiter for waiting in self._waiting.values() for waiter in waiting])

    def has(self, number: int) -> bool:
        """Somebody outside waits for this one."""
        return number in self._waiting

    def add_first(self, number: int, waiter: Waiter) -> None:
        """The caller whose request has just been accepted."""
        self._waiting[number] = [waiter]

    def add(self, number: int, waiter: Waiter) -> None:
        """One more caller; those who have given up make room."""
        waiting = [one for one in self._waiting.get(number, ()) if not one.done()]
        self._waiting[number] = [*waiting, waiter]

    def move(self, number: int, to: int) -> None:
        """The invocation goes on under another number."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            self._waiting[to] = waiting

    def take(self, number: int) -> list[Waiter] | None:
        """All who wait for this one, to be answered or refused; None if no one does."""
        return self._waiting.pop(number, None)
