"""Ordinary code that hears of events: not durable, from now on, for as long as the runtime runs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

from durably.actors.event_values import EventClass, decode_stored
from durably.actors.values.descriptions import named
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import RuntimeStoppedError
from durably.runtime.messaging.event_feeds import EventReader
from durably.runtime.observation.observer import Observer
from durably.storage.records import EventRecord

Hear: TypeAlias = Callable[[Any], Awaitable[object] | object]
Unsubscribe: TypeAlias = Callable[[], Awaitable[None]]


class EventSubscribers:
    """Functions of the program around a runtime that get events, each one after the other."""

    def __init__(self) -> None:
        self._told: set[_Told] = set()

    def add(
        self, hear: Hear, classes: Mapping[str, EventClass], reader: EventReader, observer: Observer
    ) -> Unsubscribe:
        """From now on a function hears of what a reader reads. What it raises is logged, and it hears of the next."""
        told = _Told(hear, classes, reader, observer)
        self._told.add(told)
        told.task.add_done_callback(lambda _: self._told.discard(told))

        async def unsubscribe() -> None:
            if told.end():
                await asyncio.wait([told.task])

        return unsubscribe

    async def close(self, within_seconds: float) -> None:
        """The runtime has stopped: none hears of anything any more. What does not end by then is left to itself."""
        ending = {told.task: told for told in [*self._told] if told.end()}
        if ending:
            _, left = await asyncio.wait(ending, timeout=within_seconds)
            for task in left:
                ending[task].observer.subscriber_does_not_end(_name_of(ending[task].hear))


_hears: ContextVar[_Told | None] = ContextVar("durably_hears", default=None)
"""Which function is in a call, in its task and in those that it starts."""


class _Told:
    """A function, and the task that calls it."""

    def __init__(self, hear: Hear, classes: Mapping[str, EventClass], reader: EventReader, observer: Observer) -> None:
        self.hear = hear
        self._classes = classes
        self._reader = reader
        self.observer = observer
        self._is_over = False
        self._is_in_call = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    def end(self) -> bool:
        """It hears of nothing more; whether it was cancelled. A call that has asked for that itself is let through."""
        self._is_over = True
        if self._is_in_call and _hears.get() is self:
            return False
        self.task.cancel()
        return True

    async def _run(self) -> None:
        _hears.set(self)
        reader = self._reader
        try:
            while not self._is_over:
                after = reader.after
                records = await reader.next()
                if reader.complete_after > after:
                    self.observer.subscriber_too_slow(sorted(self._classes))
                for record in records:
                    cls = self._classes.get(record.name)
                    if cls is not None and not self._is_over:
                        await self._tell(cls, record)
        except RuntimeStoppedError:
            return
        finally:
            reader.close()

    async def _tell(self, cls: EventClass, record: EventRecord) -> None:
        self._is_in_call = True
        try:
            stored = decode_stored(record.value)
            told = self.hear(cls.decode(stored.version, bytes(stored.value)))
            if inspect.isawaitable(told):
                await told
        except USER_ERRORS as error:
            let_signals_pass(error)
            if isinstance(error, asyncio.CancelledError) and self.task.cancelling():
                raise
            self.observer.subscriber_failed(record.name, error)
        finally:
            self._is_in_call = False


def _name_of(hear: Hear) -> str:
    return named(hear) if hasattr(hear, "__qualname__") else repr(hear)
