"""`Sources`: records from outside become messages, each once, in order for each partition and key (rule P7).

How far a feed was read is a durable row: for each partition, where its next record may be. A transition accepts a
message for each record of a poll, and moves the row behind them. What a source gives a second time lies before its row,
and is passed over. So no record is missed and none is accepted twice, even if the process or the store fails in
between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import partial
from typing import cast

import msgspec

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.headers import plain_headers
from durably.actors.values.descriptions import shortened, text_for_people
from durably.actors.values.names import checked_name
from durably.actors.values.type_checks import is_int, is_mapping, is_text
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import (
    CodecError,
    InvalidArgumentError,
    UnencodableError,
    UnknownTargetError,
    UnreadableRecordError,
)
from durably.ids import Entropy, InvocationStatus, is_storable, new_identity
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck, Receiver
from durably.runtime.commit.transition import Transition
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.in_flight import InFlight, holds_up, is_open_message
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.observation.observer import Observer
from durably.sources import Feed, IdentifiedSource, MeasuredSource, Source, SourceRecord
from durably.storage.records import SOURCES, OpenMessages, StoredObject
from durably.storage.store import Store

FIRST_DELAY_US = 250_000
MOST_DELAY_US = 30_000_000
"""How long a source that failed is left alone: at first, and at most."""
CLOSING_US = 5_000_000
"""How long a source may take to close."""
MOST_POSITION = 2**63 - 1
"""The largest that a row keeps."""
STOPPING_US = 2 * CLOSING_US
"""How long a source may take to end when it is cancelled, closing included."""


class SourceStatus(StrEnum):
    """Where a feed stands. The store keeps the name."""

    ON = "on"
    PAUSED = "paused"
    """No record is taken. When it is resumed, it goes on where it was."""


class SourceRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps of a feed."""

    positions: dict[str, int] = {}
    """For each partition, where its next record may be."""
    status: SourceStatus = SourceStatus.ON
    refused: tuple[str, int] | None = None
    """The record that cannot become a message: its partition and position."""
    reason: str | None = None
    """Why it is paused, if the machine has done that."""
    identity: str | None = None
    """What the positions are of, if the source tells."""
    found: str | None = None
    """What is there instead, for which it is paused."""


class RunningFeed:
    """A feed in memory."""

    def __init__(self, feed: Feed, handler: BoundActorHandler) -> None:
        self.feed = feed
        self.handler = handler
        self.name = feed.name
        self.row = SourceRow()
        self.is_unreadable = False
        """The store does not tell where it was, so its row here says nothing of that."""
        self.failure: str | None = None
        """What the source has raised since it last gave something."""
        self.in_flight = InFlight()
        self.keys: dict[str, str] = {}
        """Those of the messages in flight, by id."""
        self._left_held_up: dict[str, int] = {}
        """How many messages waited behind a paused one when this incarnation began, by key."""
        self.is_busy = True
        """It does not wait: for records, for room, to be resumed, or until it is tried again."""
        self._changed = asyncio.Event()
        self._waits_for_change = False

    def take_over(self, left: Sequence[OpenMessages]) -> None:
        """What an earlier incarnation has left. Of whom it is the store does not tell: calls from outside to the same
        handler count too, and where several feeds have it, all of it counts for each of them.
        """
        self.in_flight.take_over(left)
        self.keys.update((id, one.key) for one in left for id in one.ids)
        self._left_held_up.update((one.key, one.count) for one in left if one.is_held_up)

    def end(self, invocation: InvocationRun) -> None:
        """One to its handler has ended: there is room if it was a message of this feed."""
        key = self.keys.pop(invocation.id, None) or self._ended_of_left(invocation)
        if key is not None:
            self.in_flight.end(key, was_first=invocation.activation.current is invocation)
            self.change()

    def _ended_of_left(self, invocation: InvocationRun) -> str | None:
        """Its key, if it is one that was held up: those come first there, and their ids were not asked for."""
        key = invocation.address.key
        if key not in self._left_held_up or not is_open_message(invocation):
            return None
        self._left_held_up[key] -= 1
        if not self._left_held_up[key]:
            del self._left_held_up[key]
        return key

    def change(self) -> None:
        """It may go on: it was resumed, or there is room."""
        self.is_busy |= self._waits_for_change
        self._changed.set()

    async def until_changed(self) -> None:
        self._changed.clear()
        self._waits_for_change = True
        try:
            await self._changed.wait()
        finally:
            self._waits_for_change = False

    @property
    def is_on(self) -> bool:
        return self.row.status is SourceStatus.ON

    @property
    def behind(self) -> int | None:
        """So many records have not become messages, as far as the source tells; None: it does not."""
        source, positions = self.feed.source, self.row.positions
        if not isinstance(source, MeasuredSource):
            return None
        try:
            ends = _checked_positions(source.ends())
        except USER_ERRORS as error:
            let_signals_pass(error)
            return None
        known = ((end, positions.get(partition)) for partition, end in ends.items())
        return sum(max(0, end - position) for end, position in known if position is not None)

    @property
    def has_room(self) -> bool:
        return self.in_flight.counted < self.feed.in_flight

    @property
    def waits_for_room(self) -> bool:
        return self.is_on and self._waits_for_change


class Sources:
    """The feeds of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        acceptance: Acceptance,
        activations: Activations,
        background: Background,
        clock: Clock,
        committer: Committer,
        endings: Endings,
        entropy: Entropy,
        feeds: Sequence[tuple[Feed, BoundActorHandler]],
        idleness: Idleness,
        left: Mapping[BoundActorHandler, Sequence[OpenMessages]],
        observer: Observer,
        payloads: PayloadCheck,
        ready: ReadyQueue,
        store: Store,
    ) -> None:
        self._incarnation = incarnation
        self._acceptance = acceptance
        self._background = background
        self._clock = clock
        self._committer = committer
        self._entropy = entropy
        self._host = asyncio.get_running_loop()
        self._idleness = idleness
        self._observer = observer
        self._payloads = payloads
        self._ready = ready
        self._store = store
        self.running = [RunningFeed(feed, handler) for feed, handler in feeds]
        """All of them. Where they stand is known once the store has told it: `known`."""
        self._tasks: list[asyncio.Task[None]] = []
        self._taken_over = asyncio.Event()
        self._of_handler: dict[BoundActorHandler, list[RunningFeed]] = {}
        for one in self.running:
            self._of_handler.setdefault(one.handler, []).append(one)
            one.take_over(left.get(one.handler, ()))
            endings.on_end_of[one.handler] = self._has_ended
        if self.running:
            committer.on_pause_changed.append(self._has_pause_changed)
            activations.on_queued.append(self._has_queued)
        idleness.add(self._is_idle)

    # ------------------------------------------------------------------ its life

    def start(self) -> None:
        if self.running:
            self._background.spawn(self._take_over())

    def kill(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def finish(self) -> None:
        """After `kill`: wait until the sources are closed, but not for ever."""
        tasks, self._tasks = self._tasks, []
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=STOPPING_US / 1_000_000)
            for one, task in zip(self.running, tasks, strict=True):
                if task in left:
                    self._observer.source_does_not_end(one.name)

    async def known(self) -> list[RunningFeed]:
        """All of them, once the store has told where they stand."""
        if self.running:
            await self._taken_over.wait()
        return self.running

    async def set_status(self, name: str, status: SourceStatus, *, passes_over: bool = False) -> bool:
        """Turn a feed on or off; whether that changed anything. `passes_over` the record that it cannot take, or a row
        that cannot be read or is of something else: then it begins anew.

        Raises:
            UnknownTargetError: there is none of this name.
            UnreadableRecordError: it is not known where it was, so it cannot go on from there.
        """
        one = next((one for one in await self.known() if one.name == name), None)
        if one is None:
            known = sorted(one.name for one in self.running)
            there = f"There are: {', '.join(known)}." if known else "There are none."
            raise UnknownTargetError(f"There is no feed {name!r}. {there}", known=known)
        if one.row.status is status:
            return False
        if one.is_unreadable and not passes_over:
            await self._read_again(one)
        one.is_unreadable = False
        positions, identity = one.row.positions, one.row.found or one.row.identity
        if passes_over and one.row.refused is not None:
            partition, position = one.row.refused
            positions = {**positions, partition: position + 1}
        elif passes_over and one.row.found is not None:
            positions = {}
        self._keep(self._committer.begin(), one, SourceRow(positions=positions, status=status, identity=identity))
        self._ready.schedule()
        one.change()
        return True

    async def _take_over(self) -> None:
        """Find out where they stood."""
        (stored,) = await self._store.load([SOURCES], pending_limit=0)
        if self._incarnation.dead:
            return
        for one in self.running:
            try:
                one.row = _row_of(one.name, stored)
            except UnreadableRecordError as error:  # Rule L5: where it was is not known, so nothing of it is taken.
                one.is_unreadable = True
                one.row = SourceRow(status=SourceStatus.PAUSED, reason=str(error))
                self._observer.source_unreadable(one.name, error)
            self._tasks.append(self._host.create_task(self._run(one)))
        self._taken_over.set()

    async def _read_again(self, one: RunningFeed) -> None:
        """Its row may have been restored, or the codec have all of its keys.

        Raises:
            UnreadableRecordError: it still cannot be read.
        """
        (stored,) = await self._store.load([SOURCES], pending_limit=0)
        if one.is_unreadable:  # Still, after the wait.
            one.row = _row_of(one.name, stored)

    def _is_idle(self) -> bool:
        return self._incarnation.stopping or not any(one.is_busy for one in self.running)

    # ------------------------------------------------------------------ a source

    async def _run(self, one: RunningFeed) -> None:
        """Read a source for as long as the incarnation lives."""
        delay_us = FIRST_DELAY_US
        while not self._is_over:
            await self._until_on(one)
            before = one.row
            try:
                await self._read_on(one)
            except USER_ERRORS as error:
                let_signals_pass(error)
                task = asyncio.current_task()
                if self._incarnation.dead or (task is not None and task.cancelling()):
                    raise
                if one.row is not before:
                    delay_us = FIRST_DELAY_US
                one.failure = f"{type(error).__name__}: {error}"
                self._observer.source_failed(one.name, error, delay_us)
                with self._waiting(one):
                    await self._clock.sleep(delay_us)
                delay_us = min(delay_us * 2, MOST_DELAY_US)

    @property
    def _is_over(self) -> bool:
        return self._incarnation.dead or self._incarnation.stopping  # Rule T4

    async def _until_on(self, one: RunningFeed) -> None:
        while not one.is_on:
            with self._waiting(one):
                await one.until_changed()

    async def _read_on(self, one: RunningFeed) -> None:
        """Open it and take its records, until it fails or some are not taken: then it has to be opened again."""
        source = one.feed.source
        try:
            begins = _checked_positions(await source.open(dict(one.row.positions)))
            goes_on = await self._in_the_log(one, partial(self._begin, one, begins, _checked_identity(source)))
            while goes_on and not self._is_over:
                while not one.has_room:
                    with self._waiting(one):
                        await one.until_changed()
                with self._waiting(one):
                    records = _checked_records(await source.poll())
                if records:
                    goes_on = await self._in_the_log(one, partial(self._take, one, records))
        finally:
            with suppress(Exception):
                async with asyncio.timeout(CLOSING_US / 1_000_000):
                    await source.close()

    async def _in_the_log(self, one: RunningFeed, change: partial[bool]) -> bool:
        """Change what is in the log, in a callback of the host loop; whether it was, once that is durable (rule X1)."""
        durable: asyncio.Future[bool] = self._host.create_future()
        self._host.call_soon(self._change, one, change, durable)
        return await durable

    def _change(self, one: RunningFeed, change: partial[bool], durable: asyncio.Future[bool]) -> None:
        if not self._incarnation.dead:
            is_changed = not self._incarnation.stopping and one.is_on and change()
            self._committer.when_durable(partial(_done, durable), is_changed)
            self._ready.schedule()

    @contextmanager
    def _waiting(self, one: RunningFeed) -> Generator[None, None, None]:
        """Nothing happens to it meanwhile."""
        one.is_busy = False
        self._idleness.changed()
        try:
            yield
        finally:
            one.is_busy = True

    # ------------------------------------------------------------------ its records

    def _begin(self, one: RunningFeed, begins: Mapping[str, int], identity: str | None) -> bool:
        """Partitions that were not read before begin somewhere, now and for good. Whether it may be read on."""
        row = one.row
        if None not in (identity, row.identity) and identity != row.identity:
            self._pause_before_another(one, identity)
            return False
        new = {partition: at for partition, at in begins.items() if partition not in row.positions}
        if new or identity not in (None, row.identity):
            positions = {**row.positions, **new}
            row = msgspec.structs.replace(row, positions=positions, identity=identity or row.identity)
            self._keep(self._committer.begin(), one, row)
        if new:
            self._observer.source_begins(one.name, new)
        return True

    def _pause_before_another(self, one: RunningFeed, found: str | None) -> None:
        """Its positions are of what is not there any more."""
        reason = (
            f"What {one.name!r} reads is not what was read before: it was {one.row.identity} and is {found}, so it was "
            f"made anew, or is elsewhere. Resume it with pass_over=True to begin it anew, as a source that was never "
            "read, or without to go on at the old positions."
        )
        reason = text_for_people(reason)
        self._observer.source_paused(one.name, reason)
        row = msgspec.structs.replace(one.row, status=SourceStatus.PAUSED, reason=reason, found=found)
        self._keep(self._committer.begin(), one, row)

    def _take(self, one: RunningFeed, records: Sequence[SourceRecord]) -> bool:
        """They become messages, and the row moves behind them, in one transition; whether all do. One that cannot
        pauses the feed.
        """
        transition, row = self._committer.begin(), one.row
        positions = dict(row.positions)
        for record in records:
            if record.position < positions.get(record.partition, 0):
                continue
            try:
                self._accept(transition, one, record)
            except (InvalidArgumentError, UnencodableError, CodecError, TypeError) as error:
                what = f"The record {record.position} of the partition {record.partition} cannot become a message: "
                reason = text_for_people(what + str(error))  # Which the row can keep, whatever a validator says.
                self._observer.source_paused(one.name, reason)
                refused = (record.partition, record.position)
                row = msgspec.structs.replace(row, status=SourceStatus.PAUSED, refused=refused, reason=reason)
                break
            positions[record.partition] = record.position + 1
        one.failure = None
        self._keep(transition, one, msgspec.structs.replace(row, positions=positions))
        return one.is_on

    def _accept(self, transition: Transition, one: RunningFeed, record: SourceRecord) -> None:
        """
        Raises:
            InvalidArgumentError, TypeError: it is no message to the handler.
            UnencodableError, CodecError: the store does not take it.
        """
        handler, key = one.handler, None
        if handler.kind != "service":
            key = checked_name(record.key or "", f"The key of {handler.service} is Unicode text, not {record.key!r}.")
        argument, headers = handler.admit(record.value), plain_headers(record.headers)
        self._payloads.message(Receiver(handler.service, key, handler.name, headers), argument)
        id, seed = new_identity(self._entropy, handler.service, key)
        transition.next_position()
        self._acceptance.accept(transition, Message(handler, key, argument, id, seed, headers, None))
        one.keys[id] = id if key is None else key
        one.in_flight.add(one.keys[id])
        if self._observer.detailed:
            self._observer.record_taken(one.name, id, transition.position)

    def _keep(self, transition: Transition, one: RunningFeed, row: SourceRow) -> None:
        one.row = row
        transition.keep_source(one.name, msgspec.json.encode(row))

    # ------------------------------------------------------------------ its messages

    def _has_ended(self, invocation: InvocationRun) -> None:
        for one in self._of_handler[invocation.handler]:
            one.end(invocation)

    def _has_pause_changed(self, invocation: InvocationRun) -> None:
        """A message of a source has paused or goes on, or the invocation that such messages wait behind."""
        for one in self.running:
            if holds_up(invocation, one.handler):
                one.in_flight.pause_changed(invocation)
                one.change()

    def _has_queued(self, invocation: InvocationRun, holder: InvocationRun) -> None:
        """A message waits behind another one, which may be paused for long."""
        if holder.status is InvocationStatus.PAUSED:
            for one in self._of_handler.get(invocation.handler, ()):
                one.in_flight.pause(invocation.address.key)
                one.change()


def _row_of(name: str, stored: StoredObject) -> SourceRow:
    """Where a feed stands.

    Raises:
        UnreadableRecordError: the store does not tell.
    """
    if stored.left_out_bytes is None:
        value = stored.state.get(name)
        if value is None:
            return SourceRow()
        try:
            return msgspec.json.decode(value, type=SourceRow)
        except ValueError as error:
            reason = stored.unreadable.reason if not value and stored.unreadable is not None else f"{error}."
    else:
        reason = f"The rows of all sources hold {stored.left_out_bytes:,} bytes, more than the store loads."
    raise UnreadableRecordError(
        f"The store does not tell how far the source {name!r} was read: {reason} Restore the row, or give the codec "
        "all of its keys, and resume the source. Or pass the row over, and the source begins anew, so that records "
        "come twice or are missed: resume_source(name, pass_over=True)."
    )


def _checked_positions(begins: Mapping[str, int]) -> Mapping[str, int]:
    """Before anything of it is in the log.

    Raises:
        TypeError: a source gave something else.
    """
    if not is_mapping(begins) or not all(_is_place(partition, at) for partition, at in begins.items()):
        raise TypeError(f"A source gives the positions of partitions, by name, not {shortened(begins)}.")
    return begins


def _checked_identity(source: Source) -> str | None:
    """The same of what a source says that it reads."""
    identity = source.identity() if isinstance(source, IdentifiedSource) else None
    if identity is not None and not (is_text(identity) and is_storable(identity)):
        raise TypeError(f"identity() of a source gives Unicode text without NUL, or None, not {shortened(identity)}.")
    return identity or None


def _checked_records(records: Sequence[SourceRecord]) -> Sequence[SourceRecord]:
    """The same of records. What can be gone through only once would be lost by that."""
    if not isinstance(cast("object", records), Sequence):
        raise TypeError(f"poll() of a source gives a sequence of SourceRecords, such as a list, not {records!r}.")
    for record in records:
        given = cast("object", record)
        if not isinstance(given, SourceRecord) or not _is_place(given.partition, given.position):
            raise TypeError(f"poll() of a source gives SourceRecords with a partition and a position, not {given!r}.")
        if not isinstance(cast("object", given.value), bytes) or not is_mapping(given.headers):
            raise TypeError(f"A SourceRecord has a value of bytes and a mapping of headers, not {given!r}.")
    return records


def _is_place(partition: object, position: object) -> bool:
    """A partition that the store can name, and a position that it can keep."""
    is_named = is_text(partition) and is_storable(cast("str", partition))
    return is_named and is_int(position) and 0 <= position <= MOST_POSITION


def _done(durable: asyncio.Future[bool], is_changed: bool) -> None:
    if not durable.done():
        durable.set_result(is_changed)
