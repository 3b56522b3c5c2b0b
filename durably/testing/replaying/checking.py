"""`check_store`: what would break if this code went on with a store. The store is only read, and no action is run.

Every open journal is replayed as a runtime would do it, every snapshot is brought to the state version of its class
and decoded, and each migration is run twice: what it gives must not depend on chance. Every entry of a collection is
decoded too, a page at a time, as its field's type and key are today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from durably.actors.definition.binding import BoundActor
from durably.actors.large_state import DurableDict, LargeField, Lazy
from durably.actors.migrations import recorded_state_version
from durably.actors.protocol.entries import PAGE_ENTRIES
from durably.errors import StateMigrationError, UndecodableError
from durably.ids import Address, EntryKey, visible_state
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.invocations.code_versions import CodeVersions
from durably.runtime.invocations.load_errors import newer_state_error, state_load_error, unreadable_entry
from durably.runtime.lifecycle.subscriptions import subscription_name
from durably.storage.introspection import Introspection
from durably.storage.records import (
    SUBSCRIPTIONS,
    EntryQuery,
    InvocationRecord,
    StoredObject,
    at_the_beginning,
    entry_part,
)
from durably.testing.replaying.export import journals_under_way
from durably.testing.replaying.journals import ExportedJournal
from durably.testing.replaying.replay import ReplayFailure, failure_of
from durably.testing.replaying.unhandled import Unhandled, unhandled

_PAGE_OBJECTS = 100
_ROW, _JOURNAL, _STATE = "row", "journal", "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that would break."""

    kind: str
    """`journal`: an invocation does not go on with this code; `state`: an object is not read; `row`: an invocation
    cannot be read by any code."""
    target: str
    """`Service/handler`, `Object/key/handler`, or `Object/key` of a state."""
    reason: str
    invocation: str | None = None
    status: str | None = None
    step: int | None = None
    recorded: Sequence[str] = ()
    attempted: Sequence[str] = ()
    recorded_by: str | None = None
    """The version of the code that made the step, if it is known."""


@dataclass(slots=True, kw_only=True)
class CheckReport:
    """What was looked at, and what was found."""

    journals: int = 0
    steps: int = 0
    objects: int = 0
    migrated: int = 0
    """Objects whose state has an older version than their class, and can be migrated."""
    detached: list[str] = field(default_factory=list[str])
    """Subscriptions and consumers that the store knows and no class declares: they hear of nothing any more."""
    unhandled: list[Unhandled] = field(default_factory=list[Unhandled])
    """Events, and transitions of models, that no handler gets. That may be meant: others read events, too."""
    problems: list[Problem] = field(default_factory=list[Problem])


async def check_store(
    store: Introspection,
    actors: Mapping[str, BoundActor],
    *,
    version: str | None = None,
    on_checked: Callable[[CheckReport], object] | None = None,
) -> CheckReport:
    """Look at all that is under way and all state in an open store, with the classes of a runtime (`Runtime.actors`).

    `version` is what the runtime calls its code, if it does (`Runtime.version`). `on_checked` hears of the report as it
    grows.

    Raises:
        StoreUnavailableError: the store cannot be read.
    """
    report = CheckReport()
    versions = CodeVersions(version)

    def left_out(record: InvocationRecord, why: str) -> None:
        target = f"{record.address.service}/{record.address.key}/{record.handler}"
        status = str(record.status)
        report.problems.append(Problem(kind=_ROW, target=target, reason=why, invocation=record.id, status=status))

    async with aclosing(journals_under_way(store, on_left_out=left_out)) as journals:
        async for journal in journals:
            _check_journal(report, journal, actors, versions)
            if on_checked is not None:
                on_checked(report)
    for actor in actors.values():
        if actor.definition.kind != "service":
            await _check_objects(report, store, actor, on_checked)
    report.detached += await _detached(store, actors)
    report.unhandled += await unhandled(store, actors)
    return report


async def _detached(store: Introspection, actors: Mapping[str, BoundActor]) -> list[str]:
    declared = {subscription_name(handler) for actor in actors.values() for handler in actor.handlers.values()}
    return [name for stored in await store.objects([SUBSCRIPTIONS]) for name in stored.state if name not in declared]


def _check_journal(
    report: CheckReport, journal: ExportedJournal, actors: Mapping[str, BoundActor], versions: CodeVersions
) -> None:
    report.journals += 1
    report.steps += len(journal.steps)
    failure = failure_of(journal, actors, versions)
    if failure is not None:
        report.problems.append(_problem(failure))


def _problem(failure: ReplayFailure) -> Problem:
    journal = failure.journal
    made_by = [version for index, version in journal.versions if failure.step is None or index <= failure.step]
    return Problem(
        kind=_JOURNAL,
        target=journal.target,
        reason=failure.reason,
        invocation=journal.id,
        status=str(journal.status),
        step=failure.step,
        recorded=failure.recorded,
        attempted=failure.attempted,
        recorded_by=str(made_by[-1]) if made_by else None,
    )


async def _check_objects(
    report: CheckReport,
    store: Introspection,
    actor: BoundActor,
    on_checked: Callable[[CheckReport], object] | None,
) -> None:
    service, after = actor.definition.name, ""
    large = actor.large_fields()
    while page := await store.summaries(service, after=after, limit=_PAGE_OBJECTS):
        after = page[-1].key
        # Entries are not counted in `state_bytes`.
        wanted = [Address(service, summary.key) for summary in page if summary.state_bytes or large]
        for stored in await store.objects(wanted):
            reason = _why_not_read(report, stored, actor) or await _hollow_list(store, stored, actor)
            entries = 0
            for one in large.values():
                seen, misfit = await _check_entries(store, stored.address, one)
                entries += seen
                reason = reason or misfit
            if not (stored.state or entries or reason):
                continue
            report.objects += 1
            if reason is not None:
                target = "/".join(stored.address)
                report.problems.append(Problem(kind=_STATE, target=target, reason=reason))
            if on_checked is not None:
                on_checked(report)


async def _check_entries(store: Introspection, address: Address, field: LargeField) -> tuple[int, str | None]:
    """How many entries of a field were looked at, and why one of them cannot be read by its class, if one cannot."""
    seen, after = 0, None
    while True:
        (answer,) = await store.entries([EntryQuery(address, field.name, limit=PAGE_ENTRIES, after=after)])
        if answer.unreadable is not None:
            return seen + 1, describe_failure(unreadable_entry(address, answer.unreadable))
        for key, data in answer.entries:
            seen += 1
            reason = _entry_misfit(field, key, data)
            if reason is not None:
                return seen, f"{at_the_beginning(entry_part(field.name, key))} {reason}"
        if len(answer.entries) < PAGE_ENTRIES:
            return seen, None
        after = answer.entries[-1][0]


def _entry_misfit(field: LargeField, key: EntryKey, data: bytes) -> str | None:
    is_named = key.name != ""
    if is_named != (field.kind is DurableDict) or (field.kind is Lazy and key.position != 0):
        return (
            f"is none of a {field.kind.__name__}: the field was another collection when it was written. Give the field "
            "another name=, and move what is there in a handler of the old code."
        )
    try:
        if is_named:
            field.user_key(key)
        field.decode(data)
    except UndecodableError as error:
        return f"does not fit: {error}"
    return None


def _why_not_read(report: CheckReport, stored: StoredObject, actor: BoundActor) -> str | None:
    """Why the state of an object cannot be read by its class, if it cannot."""
    error = state_load_error(stored)
    if error is not None:
        return describe_failure(error)
    state = visible_state(stored.state)
    version = recorded_state_version(stored.state)
    newer = newer_state_error(stored.address, version, actor.state_version)
    if newer is not None:
        return str(newer)
    try:
        if state and version != actor.state_version:
            migrated = actor.migrate_state(state, version)
            if actor.migrate_state(state, version) != migrated:
                return (
                    f"Its migration from state version {version} gives another state each time. It must not look at "
                    "clocks or chance, nor iterate over sets of strings."
                )
            state = migrated
            report.migrated += 1
    except StateMigrationError as failed:
        return str(failed)
    return _misfit(state, actor)


def _misfit(state: Mapping[str, bytes], actor: BoundActor) -> str | None:
    large = actor.large_fields()
    for name, value in state.items():
        if name in large:
            if large[name].has_bounds(value):  # Where a list begins and ends, which is no value of the user's.
                continue
            return _of_another_kind(name, large[name])
        try:
            actor.decode_state(name, value)
        except UndecodableError as error:
            return (
                f"The stored value of {name!r} does not fit its type: {error} Let the type accept the old form, give "
                "the field another name=, or migrate the state (state_version=, @migrate)."
            )
    return None


async def _hollow_list(store: Introspection, stored: StoredObject, actor: BoundActor) -> str | None:
    """A list says where it begins and ends, and the store has no such entries: it is a plain list of two numbers."""
    for name, large in actor.large_fields().items():
        value = visible_state(stored.state).get(name)
        if value is None or not large.has_bounds(value):
            continue
        first, end = large.bounds(value)
        ends = (EntryKey(first, ""), EntryKey(end - 1, ""))
        (answer,) = await store.entries([EntryQuery(stored.address, name, keys=ends, only_keys=True)])
        if answer.unreadable is None and not answer.entries:
            return _of_another_kind(name, large)
    return None


def _of_another_kind(name: str, large: LargeField) -> str:
    return (
        f"The stored value of {name!r} was written by a field of another kind, which {large.kind.__name__} cannot "
        "read. Give the new field another name=, keep the old one, and move its value over in a handler."
    )
