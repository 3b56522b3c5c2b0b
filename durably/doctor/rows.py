"""Whether the rows of a SQLite file fit together: finds what no commit leaves behind, even after a crash."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from durably.actors.values.durations import FOREVER_US, LATEST_US
from durably.doctor.findings import MOST_OF_A_KIND, Finding, Findings, problem
from durably.doctor.stuck import name_of
from durably.errors import StoreUnavailableError
from durably.ids import Address, InvocationStatus
from durably.storage.examination import ROW_CHECKS, Row, expected_layout
from durably.storage.sqlite import SqliteStore

_NO_INDEX: Final = (
    "Without an index reads get slow, and rules that it keeps are kept no longer. Stop the runtime and make it anew as "
    "the first migration of durably has it, or restore a backup."
)
_CONSUMED: Final = (
    "They take up space, and nothing reads them. Please report this line; the store can be used meanwhile."
)
SOUND: Final = "ok"
_PARAMETERS: Final = {"limit": MOST_OF_A_KIND + 1, "latest": LATEST_US, "forever": FOREVER_US}
_WRONG_ANSWER: Final = (
    "Answers would go elsewhere, or nowhere. Stop the runtime, keep a copy of the files, and restore a backup from "
    "before; or kill the caller (durably invocations kill ID) and ask again."
)
_NO_TIME: Final = (
    "What waits for it waits for ever, or is late already. Cancel or kill what it is about, or restore a backup where "
    "that must not be lost."
)


async def examine_file(store: SqliteStore, findings: Findings, progressed: Callable[[str], object]) -> None:
    """Pages, indexes and the layout."""
    try:
        tables = [str(name) for (name,) in await store.examine("tables_of")]
        for table in tables:
            progressed(f"Reading the pages of {table}")
            for (told,) in await store.examine("check_table", (table,)):
                if told != SOUND:
                    findings.add(problem("damaged-file", table, f"SQLite finds in this table: {told}."))
        findings.add_all(_layout(await store.examine("layout_of")))
        if "owner" not in tables:
            return
        ((owners,),) = await store.examine("owner_rows")
        if owners != 1:
            words = f"There are {owners} rows that say who owns the store, not one, so no runtime can open it."
            findings.add(problem("no-owner", "owner", words))
    except StoreUnavailableError as error:
        findings.add(problem("damaged-file", "the file", str(error)))


async def examine_rows(store: SqliteStore, findings: Findings, progressed: Callable[[str], object]) -> None:
    """What stands in the rows."""
    for check in ROW_CHECKS:
        progressed(f"Checking: {check.replace('_', ' ')}")
        try:
            rows = await store.examine(check, _PARAMETERS)
        except StoreUnavailableError as error:
            findings.add(problem("damaged-file", "the file", str(error)))
            return
        for row in rows:
            findings.add(await _FOUND[check](store, row))


def _layout(found: list[Row]) -> list[Finding]:
    expected = {(kind, name): sql for kind, name, sql in expected_layout()}
    there = {(kind, name): sql for kind, name, sql in found}
    missing = [key for key in expected if key not in there]
    other = [key for key in expected if key in there and there[key] != expected[key]]
    further = [key for key in there if key not in expected]
    found_there: list[Finding] = []
    for kind, name in missing:
        words = f"The {kind} {name} is missing."
        if kind == "index":
            found_there.append(problem("missing-index", name, words, _NO_INDEX))
        else:
            found_there.append(problem("layout", name, words))
    for kind, name in other:
        found_there.append(problem("layout", name, f"The {kind} {name} is not as durably made it."))
    for kind, name in further:
        words, advice = f"The {kind} {name} is none of durably's.", "Keep what is yours in a file of its own."
        found_there.append(problem("foreign-table", name, words, advice))
    return found_there


async def _orphan(store: SqliteStore, row: Row) -> Finding:
    table, number, count = row
    words = f"{count} rows belong to the invocation of number {number}, which is not there."
    return problem("orphan-rows", str(table), words, _CONSUMED)


async def _of_ended(store: SqliteStore, row: Row) -> Finding:
    table, number, count = row
    words = f"{count} rows in {table} were to go when it ended, and are still there."
    return problem("rows-of-ended", await _named(store, number), words, _CONSUMED)


async def _gap(store: SqliteStore, row: Row) -> Finding:
    number, count, last = row
    words = (
        f"Its journal has {count} steps, and the last is number {last}: steps are missing, so it cannot be replayed."
    )
    return problem("journal-gap", await _named(store, number), words)


async def _no_argument(store: SqliteStore, row: Row) -> Finding:
    return problem("no-argument", await _named(store, row[0]), "Its argument is not there, so it cannot run.")


async def _unknown_word(store: SqliteStore, row: Row) -> Finding:
    number, column, value = row
    subject = "a row" if number is None else f"number {number}"
    return problem("unknown-word", subject, f"Its {column} is {value!r}, which no version has written.")


async def _two_holders(store: SqliteStore, row: Row) -> Finding:
    service, key, count = row
    words = f"{count} exclusive invocations have begun and not ended at once; there may be one."
    return problem("two-holders", f"{service}/{key}", words)


async def _shared_place(store: SqliteStore, row: Row) -> Finding:
    service, key, position = row
    return problem("shared-place", f"{service}/{key}", f"Several messages have the place {position} in its mailbox.")


async def _no_outcome(store: SqliteStore, row: Row) -> Finding:
    words = "It has ended, and its outcome is not there: who asks for it gets none."
    return problem("no-outcome", await _named(store, row[0]), words)


async def _kept(store: SqliteStore, row: Row) -> Finding:
    return problem("kept-for-ever", await _named(store, row[0]), "It has ended, and no time removes it.", _CONSUMED)


async def _late(store: SqliteStore, row: Row) -> Finding:
    place, position = row
    words = f"Its highest log position is {position}, beyond the end of the log: numbers would be used a second time."
    return problem("late-position", str(place), words)


async def _wrong_count(store: SqliteStore, row: Row) -> Finding:
    service, key, field, counted, there = row
    words = f"Its field {field!r} has {there} entries, and count() says {counted}."
    return problem("wrong-count", f"{service}/{key}", words)


async def _early(store: SqliteStore, row: Row) -> Finding:
    place, position = row
    words = f"Its lowest log position is {position}, before the beginning of the log: nothing finds what stands there."
    return problem("early-position", str(place), words)


async def _damaged_name(store: SqliteStore, row: Row) -> Finding:
    table, *names = row
    shown = ", ".join(ascii(name) for name in names if name is not None)
    words = f"The row of {shown} has a name that is empty, is not UTF-8 or holds a NUL, which no version has written."
    return problem("damaged-name", str(table), words)


async def _damaged_entry(store: SqliteStore, row: Row) -> Finding:
    service, key, field, position, name = row
    words = f"Its field {field!r} has an entry ({position}, {name!r}), which is none of a list or of a dictionary."
    return problem("damaged-entry", f"{service}/{key}", words)


async def _impossible_time(store: SqliteStore, row: Row) -> Finding:
    table, number, service, key, column, moment_us = row
    subject = f"{service}/{key}" if number is None else await _named(store, number)
    words = f"Its {column} in {table} is {moment_us}, in microseconds since 1970, and no clock has shown that."
    return problem("impossible-time", subject, words, _NO_TIME)


async def _wrong_target(store: SqliteStore, row: Row) -> Finding:
    table, number, service, key = row
    there = service if key is None else f"{service}/{key}"
    words = f"A row of it in {table} names {there!r}, which it is not: what is due there does not reach it."
    return problem("wrong-target", await _named(store, number), words)


async def _wrong_caller(store: SqliteStore, row: Row) -> Finding:
    table, number, service, key, caller = row
    subject = f"the order of log position {number}" if table == "orders" else await _named(store, number)
    who = "half a caller" if caller is None or service is None or key is None else f"{service}/{key} of number {caller}"
    words = f"It answers {who} (in {table}), and the invocation of that number is a different one."
    return problem("wrong-caller", subject, words, _WRONG_ANSWER)


async def _wrong_kept(store: SqliteStore, row: Row) -> Finding:
    number, said, there, status = row
    if status == InvocationStatus.COMPLETED:
        words = f"Its journal is kept with {said} steps, and {there} are there."
    else:
        words = f"Its journal is kept as that of an invocation which has ended, and it is {status}."
    return problem("wrong-kept", await _named(store, number), words, _CONSUMED)


_FOUND: Final[Mapping[str, Callable[[SqliteStore, Row], Coroutine[Any, Any, Finding]]]] = {
    "orphan_rows": _orphan,
    "rows_of_the_ended": _of_ended,
    "journal_gaps": _gap,
    "missing_arguments": _no_argument,
    "unknown_words": _unknown_word,
    "two_holders": _two_holders,
    "shared_places": _shared_place,
    "missing_outcomes": _no_outcome,
    "kept_for_ever": _kept,
    "late_positions": _late,
    "early_positions": _early,
    "damaged_names": _damaged_name,
    "damaged_entries": _damaged_entry,
    "impossible_times": _impossible_time,
    "wrong_targets": _wrong_target,
    "wrong_callers": _wrong_caller,
    "wrong_kept": _wrong_kept,
    "wrong_counts": _wrong_count,
}


async def _named(store: SqliteStore, number: int) -> str:
    found = await store.examine("id_of", (number,))
    if not found:
        return f"number {number}"
    ((id, service, key, handler),) = found
    return name_of(id, Address(service, key), handler)
