"""The contract that every `Store` keeps, as tests to inherit.

For a store of your own, write in a test file::

    class TestMyStore(StoreContract):
        def make_store(self) -> InspectableStore:
            return MyStore(new_empty_place())

        def make_rival(self, store: InspectableStore) -> InspectableStore:
            return MyStore(the_place_of(store), without_early_lock=True)

and pytest runs all of it: random histories in lock-step with `MemoryStore`, which is the specification, and checks by
name for what is not lock-step (one owner at a time, epochs, snapshots). Needs the extra `durably[testing]`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from msgspec import structs

from durably.errors import StoreInUseError, StoreUnavailableError
from durably.ids import AWAKEABLE_PREFIX, Address, EntryKey, InvocationStatus, KeyScope
from durably.storage.introspection import InspectableStore
from durably.storage.memory import LOAD_LIMIT_BYTES, Disk, MemoryStore
from durably.storage.records import (
    LATEST_POSITION,
    LEAVING,
    AliasRecord,
    AttachmentRecord,
    Batch,
    CallerRecord,
    CompletionRecord,
    EntriesPortion,
    EntryQuery,
    EntryRecord,
    EventQuery,
    EventRecord,
    ExecutionRecord,
    FieldKey,
    InvocationRecord,
    InvocationUpdate,
    JournalPortion,
    KeptJournalRecord,
    ObjectExpiryRecord,
    ObjectSummary,
    OrderKind,
    OrderRecord,
    Owner,
    PlaceRecord,
    PromiseRecord,
    SignalRecord,
    StateRecord,
    StepRecord,
    TimerKey,
    TimerKind,
    TimerPlace,
    TimerRecord,
)

if TYPE_CHECKING:
    from typing_extensions import override
else:

    def override(method):  # noqa: ANN001, ANN201
        return method


T = TypeVar("T")

OWNER = Owner(host="first.example", process_id=11, since=1_700_000_000_000_000)
RIVAL = Owner(host="second.example", process_id=22, since=1_800_000_000_000_000)

LATEST_TIME = 5
SERVICES = ("Ticket", 'O\'Hara \\ "quoted"')
KEYS = ("", "mary", "base64:☃ %_", '["Ticket","mary"]\\u0000')
FIELDS = ("status", "ünï", "")
STREAMS = (*FIELDS, "default/ünï")
HANDLERS = ("reserve", "peek")

addresses = st.builds(Address, st.sampled_from(SERVICES), st.sampled_from(KEYS))
scopes = st.builds(
    KeyScope,
    st.sampled_from(SERVICES),
    st.sampled_from(KEYS),
    st.sampled_from(HANDLERS),
    st.sampled_from(("", "once", "1")),
)
payloads = st.one_of(
    st.sampled_from((b"", b"null", b'{"a": "\\u0000"}', b"base64:", b"base64:AA==", b"\x00", b"\xff\xfe", b"[1,\n2]")),
    st.binary(max_size=12),
    st.text(max_size=12).map(lambda text: text.encode()),
)
entry_keys = st.builds(
    EntryKey, st.integers(-2, 3) | st.just((1 << 63) - 1), st.sampled_from(("", "#", "=a", "=☃", "=b"))
)
fields = st.builds(FieldKey, addresses, st.sampled_from(FIELDS))
event_queries = st.builds(
    EventQuery,
    stream=st.sampled_from(STREAMS),
    key=st.none() | st.sampled_from(KEYS),
    id=st.none() | st.integers(1, 100).map("tsn_{}".format),
    after=st.integers(0, 100),
    before=st.integers(0, 100) | st.just(LATEST_POSITION),
    limit=st.integers(1, 5),
    is_backward=st.booleans(),
)
entry_queries = st.builds(
    EntryQuery,
    addresses,
    st.sampled_from(FIELDS),
    keys=st.lists(entry_keys, max_size=3).map(tuple),
    only_keys=st.booleans(),
    limit=st.integers(0, 4),
    after=st.none() | entry_keys,
    before=st.none() | entry_keys,
    is_backward=st.booleans(),
    counts=st.booleans(),
)
times = st.integers(0, LATEST_TIME)
statuses = st.sampled_from(tuple(InvocationStatus))
# Mailboxes are only interesting when several invocations meet in one.
busy_addresses = st.sampled_from((Address("Ticket", "mary"), Address("Ticket", "")))
busy_statuses = st.sampled_from((*InvocationStatus, InvocationStatus.PENDING, InvocationStatus.PENDING))
callers = st.builds(CallerRecord, addresses, st.integers(1, 1 << 62), st.integers(-3, 1 << 31))


class StoreContract:
    """Inherit, say how a store is made, and let pytest collect it."""

    examples = 60
    """How many random histories are tried."""
    keeps_values_as_given = True
    """What a value takes up in the store is what was given to it: no codec is between."""
    load_limit_bytes = LOAD_LIMIT_BYTES
    """Of an invocation with its journal, or of a snapshot: the stores that are made leave out what holds more."""

    def make_store(self) -> InspectableStore:
        """A store on a new, empty place, not open."""
        raise NotImplementedError

    def make_rival(self, store: InspectableStore) -> InspectableStore:
        """Another store on the same place, as a second process would have it, with any early lock out of the way."""
        raise NotImplementedError

    def test_it_agrees_with_the_specification(self) -> None:
        contract = self

        class Agreement(StoreAgreement):
            """A machine for this store."""

            def __init__(self) -> None:
                super().__init__(contract.make_store(), contract.load_limit_bytes, contract.keeps_values_as_given)

        effort = settings(
            max_examples=self.examples,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        )
        run_state_machine_as_test(Agreement, settings=effort)

    def test_a_second_owner_is_refused_and_told_who_is_there(self) -> None:
        async def check(store: InspectableStore) -> None:
            await store.open(OWNER)
            with pytest.raises(StoreInUseError) as raised:
                await store.open(RIVAL)
            assert OWNER.host in str(raised.value)
            assert str(OWNER.process_id) in str(raised.value)
            await store.commit(Batch(last_position=1))

        self._run(check)

    def test_the_store_is_free_for_others_once_it_is_closed(self) -> None:
        async def check(store: InspectableStore) -> None:
            first = await store.open(OWNER)
            await store.close()
            await store.close()
            second = await store.open(RIVAL)
            assert second.epoch > first.epoch

        self._run(check)

    def test_the_same_owner_may_open_again_and_goes_on_where_it_was(self) -> None:
        async def check(store: InspectableStore) -> None:
            first = await store.open(OWNER)
            await store.commit(Batch(last_position=7, state=[_field("a", b"1")]))
            again = await store.open(OWNER)
            assert again.epoch > first.epoch
            assert again.last_position == 7
            await store.commit(Batch(last_position=9, state=[_field("b", b"2")]))
            assert await store.state(_field("a", b"").address) == {"a": b"1", "b": b"2"}

        self._run(check)

    def test_nobody_commits_under_an_older_epoch(self) -> None:
        """Rule X4. Also not in part, not later, and the sentence says who has taken over."""

        async def check(store: InspectableStore) -> None:
            await store.open(OWNER)
            await store.commit(Batch(last_position=1, state=[_field("a", b"before")]))
            rival = self.make_rival(store)
            try:
                await rival.open(RIVAL)
                with pytest.raises(StoreInUseError) as raised:
                    await store.commit(
                        Batch(last_position=2, state=[_field("a", b"too late"), _field("b", b"too late")])
                    )
                assert RIVAL.host in str(raised.value)
                with pytest.raises((StoreInUseError, StoreUnavailableError)):
                    await store.commit(Batch(last_position=2, state=[_field("b", b"too late")]))
                await rival.commit(Batch(last_position=2, state=[_field("c", b"after")]))
                assert await rival.state(_field("a", b"").address) == {"a": b"before", "c": b"after"}
            finally:
                await rival.close()

        self._run(check)

    def test_an_owner_is_told_that_it_is_one_and_that_it_is_one_no_longer(self) -> None:
        """Rule X9. Reads too are only to be trusted if `verify` succeeds after them."""

        async def check(store: InspectableStore) -> None:
            with pytest.raises((StoreInUseError, StoreUnavailableError)):
                await store.verify()
            await store.open(OWNER)
            await store.verify()
            await store.commit(Batch(last_position=1))
            await store.verify()
            rival = self.make_rival(store)
            try:
                await rival.open(RIVAL)
                for _ in range(2):
                    with pytest.raises((StoreInUseError, StoreUnavailableError)):
                        await store.verify()
                await rival.verify()
            finally:
                await rival.close()

        self._run(check)

    def test_an_owner_opens_again_only_if_nobody_was_owner_in_between(self) -> None:
        """Rule X9. The other one is gone, but what this one remembers may be old."""

        async def check(store: InspectableStore) -> None:
            await store.open(OWNER)
            await store.commit(Batch(last_position=1))
            rival = self.make_rival(store)
            await rival.open(RIVAL)
            await rival.commit(Batch(last_position=2))
            await rival.close()
            for _ in range(2):
                with pytest.raises(StoreInUseError):
                    await store.open(OWNER)
            await store.close()
            assert (await store.open(OWNER)).last_position == 2

        self._run(check)

    def test_a_batch_that_fails_leaves_nothing_behind(self) -> None:
        async def check(store: InspectableStore) -> None:
            await store.open(OWNER)
            await store.commit(Batch(last_position=1, accepted=[_invocation(1)]))
            contradiction = _invocation(2, id=_invocation(1).id)
            with pytest.raises(StoreUnavailableError):
                await store.commit(
                    Batch(last_position=2, accepted=[contradiction], state=[_field("a", b"1")], removed=[])
                )
            opened = await store.open(OWNER)
            assert opened.last_position == 1
            assert await store.state(_field("a", b"").address) == {}
            assert [record.number for record in await store.invocations(after=0, limit=10)] == [1]

        self._run(check)

    def test_a_new_execution_keeps_who_waits_and_loses_what_the_old_one_did(self) -> None:
        """Rules W1 and C3: a late answer to the old execution is not taken for one to its successor."""

        async def check(store: InspectableStore) -> None:
            await store.open(OWNER)
            waiting = CallerRecord(Address("Ticket", "joe"), 77, 3)
            await store.commit(
                Batch(
                    last_position=2,
                    accepted=[_invocation(1)],
                    steps=[StepRecord(1, 0, b"step")],
                    completions=[CompletionRecord(1, 0, 2, False, b"answer")],
                    timers=[TimerRecord(1, TimerKind.SLEEP, 1, 5, Address("Ticket", "mary"))],
                    attachments=[AttachmentRecord(1, waiting)],
                    aliases=[AliasRecord("alias", 1)],
                    signals=[
                        SignalRecord(1, 3, "approved", False, b"yes"),
                        SignalRecord(1, 4, f"{AWAKEABLE_PREFIX}id", False, b"old"),
                    ],
                )
            )
            execution = ExecutionRecord(number=9, previous=1, seed=b"f" * 16, argument=b"[2]")
            step = StepRecord(9, 0, b"another step")
            await store.commit(Batch(last_position=9, renewed=[execution], steps=[step]))
            await store.commit(Batch(last_position=10, completions=[CompletionRecord(1, 0, 10, False, b"late")]))
            ((number, stored),) = (await store.fetch([1, 9])).items()
            assert (number, stored.record.number, stored.record.id) == (9, 9, _invocation(1).id)
            assert (stored.record.seed, stored.record.argument) == (execution.seed, execution.argument)
            assert (stored.steps, stored.completions) == ([step], [])
            assert stored.attachments == [AttachmentRecord(9, waiting)]
            assert stored.signals == [SignalRecord(9, 3, "approved", False, b"yes")]
            assert (await store.find(["alias"]))["alias"].number == 9
            assert await store.timers(LATEST_TIME, 10) == []

        self._run(check)

    def test_an_outcome_that_is_stored_stays_where_an_update_says_none(self) -> None:
        """Rules E7 and L5: what fixed it may not be able to read it any more."""

        async def check(store: InspectableStore) -> None:
            await store.open(OWNER)
            fixed = structs.replace(_invocation(7), outcome=b"=" * 20_000)
            update = InvocationUpdate(
                number=7, status=InvocationStatus.RUNNING, mailbox_position=None, attempts=0, failure=None
            )
            await store.commit(Batch(last_position=1, accepted=[record := _invocation(1), fixed], updated=[update]))
            assert (await store.find([fixed.id]))[fixed.id].outcome == fixed.outcome
            for position, outcome in ((2, None), (3, b"=1"), (4, None), (5, b"!2"), (6, None)):
                update = InvocationUpdate(
                    number=1, status=InvocationStatus.RUNNING, mailbox_position=None, attempts=0, failure=None,
                    outcome=outcome,
                )  # fmt: skip
                await store.commit(Batch(last_position=position, updated=[update]))
            assert (await store.find([record.id]))[record.id].outcome == b"!2"

        self._run(check)

    def test_every_read_is_one_snapshot_beside_commits(self) -> None:
        async def check(store: InspectableStore) -> None:
            await store.open(OWNER)
            address = _field("a", b"").address

            async def write() -> None:
                for number in range(1, 40):
                    value = str(number).encode()
                    state = [_field("a", value), _field("b", value)]
                    await store.commit(Batch(last_position=number, accepted=[_invocation(number)], state=state))

            async def read() -> None:
                committed = 0
                while committed < 39:
                    found = (await store.load([address], pending_limit=1))[0]
                    assert found.state.get("a") == found.state.get("b")
                    assert len(found.started) == int(found.state.get("a", b"0"))
                    assert len(found.started) >= committed
                    committed = len(found.started)
                    await asyncio.wait([asyncio.ensure_future(_next_turn())])

            await asyncio.gather(write(), read(), read(), read())

        self._run(check)

    def test_a_store_that_is_not_open_says_so(self) -> None:
        async def check(store: InspectableStore) -> None:
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    await store.commit(Batch(last_position=1))
                with pytest.raises(StoreUnavailableError):
                    await store.load([Address("Ticket", "mary")], pending_limit=1)
                await store.open(OWNER)
                await store.close()
            assert store.describe()

        self._run(check)

    def _run(self, check: Any) -> None:
        async def checked() -> None:
            store = self.make_store()
            try:
                await check(store)
            finally:
                await store.close()

        asyncio.run(checked())


class StoreAgreement(RuleBasedStateMachine):
    """Does the same to a `MemoryStore` and to the store under test, and compares every answer."""

    def __init__(
        self, store: InspectableStore, load_limit_bytes: int = LOAD_LIMIT_BYTES, compares_sizes: bool = True
    ) -> None:
        super().__init__()
        self.compares_sizes = compares_sizes
        self.runner = asyncio.Runner()
        self.specification = MemoryStore(load_limit_bytes=load_limit_bytes)
        self.store = store
        self.position = 0
        self.store_id = ""
        self.open_both()

    @override
    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    # ------------------------------------------------------------ opening

    def open_both(self) -> None:
        wanted, got = (self.runner.run(one.open(OWNER)) for one in (self.specification, self.store))
        assert structs.replace(got, store_id="") == structs.replace(wanted, store_id="")
        assert self.store_id in ("", got.store_id), "a store has one id for all its life"
        self.store_id = got.store_id

    @rule()
    def opens_again_as_after_a_failure(self) -> None:
        self.open_both()

    @rule()
    def closes_and_opens(self) -> None:
        self.agree(self.specification.close(), self.store.close())
        self.open_both()

    # ------------------------------------------------------------ committing

    @rule(data=st.data(), count=st.integers(1, 6))
    def commits(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            batch = Histories(data, self.specification, self.position).batch()
            self.position = batch.last_position
            self.agree(self.specification.commit(batch), self.store.commit(batch))
            disk = self.specification.disk
            sizes = self.compares_sizes
            self.agree(everything(self.specification, disk, sizes), everything(self.store, disk, sizes))

    # ------------------------------------------------------------ reading

    @rule(wanted=st.lists(addresses, max_size=4), pending_limit=st.integers(1, 3))
    def loads(self, wanted: list[Address], pending_limit: int) -> None:
        self.agree(
            self.specification.load(wanted, pending_limit=pending_limit),
            self.store.load(wanted, pending_limit=pending_limit),
        )

    @rule(ids=st.lists(st.sampled_from(("inv_1", "inv_2", "unknown", "", "inv_1\\u0000")), max_size=4))
    def finds(self, ids: list[str]) -> None:
        self.agree(self.specification.find(ids), self.store.find(ids))

    @rule(numbers=st.lists(st.integers(0, 20) | st.just(1 << 62), max_size=4))
    def fetches(self, numbers: list[int]) -> None:
        self.agree(self.specification.fetch(numbers), self.store.fetch(numbers))

    @rule(numbers=st.lists(st.integers(0, 20) | st.just(1 << 62), max_size=4))
    def fetches_what_has_ended(self, numbers: list[int]) -> None:
        self.agree(self.specification.fetch_ended(numbers), self.store.fetch_ended(numbers))

    @rule(wanted=st.lists(scopes, max_size=4))
    def finds_keyed(self, wanted: list[KeyScope]) -> None:
        self.agree(self.specification.find_keyed(wanted), self.store.find_keyed(wanted))

    @rule(
        after=st.integers(0, 20),
        limit=st.integers(1, 5),
        service=st.none() | st.sampled_from(SERVICES),
        key=st.none() | st.sampled_from(KEYS),
        handler=st.none() | st.sampled_from(HANDLERS),
        status=st.none() | statuses,
    )
    def lists(
        self,
        after: int,
        limit: int,
        service: str | None,
        key: str | None,
        handler: str | None,
        status: InvocationStatus | None,
    ) -> None:
        def ask(store: InspectableStore) -> Coroutine[Any, Any, list[InvocationRecord]]:
            return store.invocations(after=after, limit=limit, service=service, key=key, handler=handler, status=status)

        self.agree(ask(self.specification), ask(self.store))

    @rule(query=event_queries)
    def asks_for_events(self, query: EventQuery) -> None:
        self.agree(self.specification.events(query), self.store.events(query))

    @rule(queries=st.lists(entry_queries, max_size=3))
    def asks_for_entries(self, queries: list[EntryQuery]) -> None:
        self.agree(self.specification.entries(queries), self.store.entries(queries))

    def agree(self, expected: Coroutine[Any, Any, T], answered: Coroutine[Any, Any, T]) -> T:
        """Run both, compare, and return what both answered."""
        wanted, got = self.runner.run(expected), self.runner.run(answered)
        assert got == wanted
        return wanted


async def everything(store: InspectableStore, disk: Disk, with_sizes: bool) -> list[object]:
    """The answers to every kind of question about all that is stored, whole and in small portions."""
    places = [Address(service, key) for service in SERVICES for key in KEYS]
    answers: list[object] = [
        await store.load(places, pending_limit=1),
        await store.load(places, pending_limit=100),
        await store.find([*disk.numbers_by_id, *(f"alias_{position}" for position in range(disk.last_position))]),
        await store.find_keyed(list(disk.numbers_by_scope)),
        await store.fetch(list(disk.rows)),
        await store.recoverable(0, 1000),
        await store.held_up(0, 1000),
        await store.held_up(0, 2),
        await store.timers(LATEST_TIME, 1000),
        await store.timers(LATEST_TIME // 2, 1000),
        await store.timers(LATEST_TIME, 1000, asked_after=LATEST_TIME // 2),
        await store.expired(LATEST_TIME // 2, 1000),
        await store.expired(LATEST_TIME, 2),
        await store.expired_promises(LATEST_TIME // 2, 1000),
        await store.expired_promises(LATEST_TIME, 1),
        await store.expired_journals(LATEST_TIME // 2, 1000),
        await store.expired_journals(LATEST_TIME, 2),
        await store.expired_objects(LATEST_TIME // 2, 1000),
        await store.expired_objects(LATEST_TIME, 2),
        await store.fetch_ended(list(disk.rows)),
        [await store.journal_size(number) for number in disk.rows],
        [await store.has_more_entries(place, 2) for place in places],
        await store.paused(2),
        await store.orders(0, 1000),
        await store.places(1000),
        await store.objects(places),
        await store.invocations(after=0, limit=1000),
    ]
    answers += [await store.invocations(after=0, limit=1000, status=status) for status in InvocationStatus]
    answers += [await store.state(place) for place in places]
    answers += await store.entries(
        [EntryQuery(place, field, limit=1000, counts=True) for place in places for field in FIELDS]
    )
    summaries = [await store.summaries(service, after="", limit=1000) for service in SERVICES]
    for found in (*summaries, await portions_of_summaries(store)):
        answers.append(found if with_sizes else [structs.replace(one, state_bytes=0) for one in found])
    for service in SERVICES:
        answers += [await store.open_messages(service, handler) for handler in HANDLERS]
    answers.append(await store.mailbox(places[0], before=0))
    answers += [await store.mailbox(place, before=before) for place in places for before in (1, LATEST_TIME)]
    answers.append(sorted(timer.place for timer in await store.timers_of(sorted(disk.rows))))
    sizes = await store.event_sizes()
    answers.append(sorted(sizes if with_sizes else [(stream, 0) for stream, _ in sizes]))
    answers += [await portions_of_timers(store), await portions_of_recoverable(store)]
    for stream in STREAMS:
        answers.append(await store.events(EventQuery(stream=stream, limit=1000)))
    return [*answers, await portions_of_orders(store), await portions_of_places(store)]


async def portions_of_places(store: InspectableStore) -> list[PlaceRecord]:
    found: list[PlaceRecord] = []
    while portion := await store.places(2, after=found[-1].order if found else None):
        found += portion
    return found


async def portions_of_summaries(store: InspectableStore) -> list[ObjectSummary]:
    found: list[ObjectSummary] = []
    while portion := await store.summaries(SERVICES[0], after=found[-1].key if found else "", limit=1):
        found += portion
    return found


async def portions_of_orders(store: InspectableStore) -> list[OrderRecord]:
    found: list[OrderRecord] = []
    while portion := await store.orders(found[-1].position if found else 0, 2):
        found += portion
    return found


async def portions_of_timers(store: InspectableStore) -> list[TimerRecord]:
    found: list[TimerRecord] = []
    after: TimerPlace | None = None
    while portion := await store.timers(LATEST_TIME, 2, after=after):
        found += portion
        after = found[-1].place
    return found


async def portions_of_recoverable(store: InspectableStore) -> list[tuple[int, Address]]:
    found: list[tuple[int, Address]] = []
    while portion := await store.recoverable(found[-1][0] if found else 0, 2):
        found += portion
    return found


UNKNOWN_NUMBER = 999_999_999
"""Of an invocation that has never been there."""


class Histories:
    """Draws batches that a runtime could have made, given what is stored."""

    def __init__(self, data: st.DataObject, specification: MemoryStore, position: int) -> None:
        self.draw = data.draw
        self.disk = specification.disk
        self.position = position
        self.began: dict[int, int] = {}
        """The new executions of the batch that is made, with the numbers that they replace."""

    def batch(self) -> Batch:
        renewed = [self.execution(number) for number in self.some(sorted(self.disk.rows))]
        self.began = {execution.number: execution.previous for execution in renewed}
        stored = sorted(self.disk.rows.keys() - self.began.values() | self.began.keys())
        removed = self.some(stored)
        ended = self.some(stored)
        accepted = self.accepted(set(removed))
        living = sorted({*stored, *(record.number for record in accepted)} - set(removed))
        forgotten = {*removed, *ended}
        # An answer, attachment or wake-up may be for an invocation that is no longer there.
        anybody = [*living, *removed, *self.began.values(), UNKNOWN_NUMBER]
        waiting = [(number, place) for number, row in self.disk.rows.items() for place in row.signals]
        return Batch(
            renewed=renewed,
            accepted=accepted,
            woken=self.some(anybody),
            updated=[self.update(number) for number in self.some(living)],
            removed=removed,
            ended=ended,
            steps=self.steps(living, forgotten),
            completions=[self.completion(number) for number in self.some(anybody, repeat=True)],
            timers=self.timers(living),
            timers_cleared=self.draw(st.lists(self.timer_keys(stored), max_size=2, unique=True)) if stored else [],
            attachments=[AttachmentRecord(number, self.draw(callers)) for number in self.some(anybody, repeat=True)],
            aliases=[AliasRecord(f"alias_{self.next_position()}", number) for number in self.some(living)],
            state=self.draw(
                st.lists(
                    st.builds(StateRecord, addresses, st.sampled_from(FIELDS), st.none() | payloads),
                    max_size=4,
                    unique_by=lambda record: (record.address, record.field),
                )
            ),
            signals=[self.signal(number) for number in self.some(anybody, repeat=True)],
            signals_taken=self.draw(st.lists(st.sampled_from(waiting), max_size=2, unique=True)) if waiting else [],
            vacated=self.draw(st.lists(addresses, max_size=2, unique=True)),
            promises=self.draw(
                st.lists(
                    st.builds(
                        PromiseRecord, addresses, st.sampled_from(FIELDS), st.booleans(), payloads, st.none() | times
                    ),
                    max_size=4,
                    unique_by=lambda record: (record.address, record.name),
                )
            ),
            orders=[self.order() for _ in range(self.draw(st.integers(0, 2)))],
            orders_done=self.some([*self.disk.orders, UNKNOWN_NUMBER]),
            entries_cleared=self.draw(st.lists(fields, max_size=1)),
            entries_trimmed=self.draw(
                st.lists(
                    st.builds(EntriesPortion, addresses, st.integers(0, 4)),
                    max_size=1,
                )
            ),
            journals_trimmed=[JournalPortion(number, self.draw(st.integers(0, 2))) for number in self.some(living)],
            entries=self.draw(
                st.lists(
                    st.builds(EntryRecord, addresses, st.sampled_from(FIELDS), entry_keys, st.none() | payloads),
                    max_size=8,
                    unique_by=lambda record: (record.address, record.field, record.key),
                )
            ),
            kept=[
                KeptJournalRecord(number, self.draw(st.just(LEAVING) | times), self.draw(times))
                for number in self.some(living)
            ],
            object_expiries=self.draw(
                st.lists(
                    st.builds(ObjectExpiryRecord, addresses, st.none() | times),
                    max_size=3,
                    unique_by=lambda record: record.address,
                )
            ),
            places_left=self.some([*(place[0] for place in self.disk.places), UNKNOWN_NUMBER]),
            places=self.draw(st.lists(self.places(living), max_size=3, unique_by=lambda place: place.order)),
            events=[self.event() for _ in range(self.draw(st.integers(0, 3)))],
            events_forgotten=self.some([*self.disk.events, UNKNOWN_NUMBER]),
            last_position=self.next_position(),
        )

    def event(self) -> EventRecord:
        position = self.next_position()
        stream, key, name = (self.draw(st.sampled_from(names)) for names in (STREAMS, KEYS, FIELDS))
        return EventRecord(position, stream, key, name, f"tsn_{position}", self.draw(times), self.draw(payloads))

    def places(self, living: Sequence[int]) -> st.SearchStrategy[PlaceRecord]:
        numbers = st.sampled_from([*living, UNKNOWN_NUMBER])
        names = st.sampled_from(FIELDS)
        return st.builds(PlaceRecord, numbers, st.just("inv_1"), names, names, numbers, st.booleans())

    def next_position(self) -> int:
        self.position += 1
        return self.position

    def some(self, numbers: Sequence[int], *, repeat: bool = False) -> list[int]:
        """A few of these invocations."""
        if not numbers:
            return []
        return self.draw(st.lists(st.sampled_from(numbers), max_size=3, unique=not repeat))

    def accepted(self, removed: set[int]) -> list[InvocationRecord]:
        gone = {self.began.get(number, number) for number in removed}
        free_ids = [self.disk.rows[number].record.id for number in gone]
        taken = {scope for scope, number in self.disk.numbers_by_scope.items() if number not in gone}
        records: list[InvocationRecord] = []
        for _ in range(self.draw(st.integers(0, 3))):
            # An execution that begins anew keeps its id.
            again = bool(free_ids) and self.draw(st.booleans())
            scope = self.draw(st.none() | scopes)
            if scope in taken:
                scope = None
            elif scope is not None:
                taken.add(scope)
            number = self.next_position()
            record_id = free_ids.pop() if again else f"inv_{number}"
            records.append(self.invocation(number, record_id, scope))
        return records

    def execution(self, previous: int) -> ExecutionRecord:
        return ExecutionRecord(
            number=self.next_position(),
            previous=previous,
            seed=self.draw(st.binary(min_size=16, max_size=16)),
            argument=self.draw(payloads),
        )

    def invocation(self, number: int, record_id: str, scope: KeyScope | None) -> InvocationRecord:
        return InvocationRecord(
            number=number,
            id=record_id,
            address=self.draw(busy_addresses | addresses),
            handler=self.draw(st.sampled_from(HANDLERS)),
            seed=self.draw(st.binary(min_size=16, max_size=16)),
            argument=self.draw(payloads),
            headers=self.draw(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2)),
            scope=scope,
            caller=self.draw(st.none() | callers),
            sender_id=self.draw(st.none() | st.sampled_from(["unknown", *self.disk.numbers_by_id])),
            deadline=self.draw(st.none() | times),
            accepted_at=self.draw(times),
            keep_outcome_us=self.draw(st.none() | times),
            status=self.draw(busy_statuses),
            mailbox_position=self.mailbox_position(),
            attempts=self.draw(st.integers(0, 3)),
            failure=self.draw(st.none() | payloads),
            outcome=self.draw(st.none() | payloads),
            expires_at=self.draw(st.none() | times),
            due=self.draw(st.none() | times),
        )

    def mailbox_position(self) -> int | None:
        # Not the order of the numbers: a delayed message joins its mailbox late (rule C6).
        position = self.next_position()
        return self.draw(st.sampled_from((position, 1_000_000 - position, None)))

    def update(self, number: int) -> InvocationUpdate:
        return InvocationUpdate(
            number=number,
            status=self.draw(busy_statuses),
            mailbox_position=self.mailbox_position(),
            attempts=self.draw(st.integers(0, 3)),
            failure=self.draw(st.none() | payloads),
            outcome=self.draw(st.none() | payloads),
            expires_at=self.draw(st.none() | times),
        )

    def steps(self, living: Sequence[int], forgotten: set[int]) -> list[StepRecord]:
        records: list[StepRecord] = []
        for number in self.some(living):
            stored = self.disk.rows[number].steps if number in self.disk.rows and number not in forgotten else {}
            first = len(stored)
            records += [
                StepRecord(number, first + more, self.draw(payloads)) for more in range(self.draw(st.integers(1, 3)))
            ]
        return records

    def completion(self, number: int) -> CompletionRecord:
        command = self.draw(st.integers(-2, 12))
        return CompletionRecord(number, command, self.next_position(), self.draw(st.booleans()), self.draw(payloads))

    def signal(self, number: int) -> SignalRecord:
        name = self.draw(st.sampled_from(("approved", "", f"{AWAKEABLE_PREFIX}id")))
        return SignalRecord(number, self.next_position(), name, self.draw(st.booleans()), self.draw(payloads))

    def order(self) -> OrderRecord:
        kind, caller = self.draw(st.sampled_from(OrderKind)), self.draw(st.none() | callers)
        return OrderRecord(self.next_position(), self.draw(st.sampled_from(KEYS)), kind, caller)

    def timer_keys(self, numbers: Sequence[int]) -> st.SearchStrategy[TimerKey]:
        return st.tuples(st.sampled_from(numbers), st.sampled_from(TimerKind), st.integers(0, 3))

    def timers(self, living: Sequence[int]) -> list[TimerRecord]:
        keys: Iterable[TimerKey] = ()
        if living:
            keys = self.draw(st.lists(self.timer_keys(living), max_size=3, unique=True))
        return [TimerRecord(*key, self.draw(times), self.draw(addresses), self.draw(times)) for key in keys]


async def _next_turn() -> None:
    """Gives the others a turn when awaited as a task."""


def _field(name: str, value: bytes) -> StateRecord:
    return StateRecord(Address("Ticket", "mary"), name, value)


def _invocation(number: int, *, id: str | None = None) -> InvocationRecord:
    return InvocationRecord(
        number=number,
        id=id if id is not None else f"inv_{number}",
        address=Address("Ticket", "mary"),
        handler="reserve",
        seed=b"0123456789abcdef",
        argument=b"null",
        headers={},
        scope=None,
        caller=None,
        sender_id=None,
        deadline=None,
        accepted_at=1,
        keep_outcome_us=None,
        status=InvocationStatus.RUNNING,
        mailbox_position=None,
    )
