"""Journals as rows of `sys_journal`: `JournalRows`.

A step of durably holds what Restate writes as several entries: what was taken in (notifications), what was asked for
(commands), what was changed (state). They stand here in that order, behind `Command: Input` and before
`Command: Output`. An answer stands where the handler has taken it in, not where it came.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from durably.actors.protocol.commands import (
    Attach,
    AwaitSignal,
    Call,
    Cancel,
    Command,
    CompleteAwakeable,
    CompletePromise,
    GetOutput,
    GetPromise,
    MakeAwakeable,
    PeekPromise,
    Run,
    Send,
    SendSignal,
    Sleep,
)
from durably.actors.values.error_envelopes import code_of, decode_failure, message_of
from durably.ids import UsedSeed, derived_invocation_id, seeds_of
from durably.runtime.execution.step import RecordedStep, decode_recorded_step
from durably.runtime.queries.functions import Function, Payloads
from durably.storage.querying import VALUE_LIMIT_BYTES, Trust

JOURNALS_KEPT: Final = 8
"""Of those that were read last: the columns of a row are asked for one by one."""
JSON_LIMIT_BYTES: Final = 64 * 1024
"""Of values that are told byte by byte, as Restate's tools read them."""

_NOTIFICATIONS: Final[Mapping[type, str]] = {
    Call: "Call", Run: "Run", Sleep: "Sleep", GetPromise: "GetPromise", PeekPromise: "PeekPromise",
    CompletePromise: "CompletePromise", Attach: "AttachInvocation", GetOutput: "GetInvocationOutput",
}  # fmt: skip
"""What an answer to a command is called; to others it is a signal."""
_SIGNALS: Final = (AwaitSignal, MakeAwakeable)

_NO_SPAN: Final = {
    "span_context": {
        "trace_id": [0] * 16, "span_id": [0] * 8, "trace_flags": 0, "is_remote": False, "trace_state": "",
    },
    "cause": None,
}  # fmt: skip
"""What Restate's tools have to read in a call that belongs to no trace."""

Entry: TypeAlias = dict[str, Any]


class JournalRows:
    """Reads journals on the connection of a query."""

    def __init__(
        self, connection: sqlite3.Connection, payloads: Payloads, trust: Trust, statements: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._payloads = payloads
        self._trust = trust
        self._sql = statements
        self._known: OrderedDict[int, Sequence[Entry]] = OrderedDict()

    def functions(self) -> Mapping[str, Function]:
        return {
            "journal_size": (1, self.size),
            "journal_indexes": (1, self.indexes),
            "journal_entry": (3, self.entry),
            "journal_commands_size": (1, self.commands_size),
            "step_at": (2, self.step_at),
            "waited_for": (2, self.waited_for),
        }

    def size(self, number: int) -> int:
        return len(self._entries(number))

    def commands_size(self, number: int) -> int:
        return sum(one["entry_type"].startswith("Command: ") for one in self._entries(number))

    def step_at(self, number: int, which: str) -> int | None:
        """When the `first` or `last` step was made, of those that are kept."""
        with self._trust:
            asked = {"number": number, "limit": VALUE_LIMIT_BYTES}
            found = self._connection.execute(self._sql[f"journal_{which}_step"], asked).fetchone()
        recorded = None if found is None else self._step(found[0])
        return None if recorded is None else recorded.step.at

    def waited_for(self, number: int, what: str) -> str:
        """The numbers of commands that have no answer yet: as a JSON array, those of `signals` or of `completions`."""
        waiting: dict[int, Command] = {}
        count = 0
        asked = {"number": number, "limit": VALUE_LIMIT_BYTES}
        with self._trust:
            steps = self._connection.execute(self._sql["journal_steps"], asked).fetchall()
            come = self._connection.execute(self._sql["journal_answers"], asked).fetchall()
        for (content,) in steps:
            recorded = self._step(content)
            if recorded is None:
                break
            waiting |= enumerate(recorded.step.commands, count)
            count += len(recorded.step.commands)
            for command in (*recorded.step.deliveries, *recorded.step.abandoned):
                waiting.pop(command, None)
        for command, *_ in come:
            waiting.pop(command, None)
        types = _SIGNALS if what == "signals" else tuple(_NOTIFICATIONS)
        return msgspec.json.encode([number for number, one in waiting.items() if isinstance(one, types)]).decode()

    def indexes(self, number: int) -> str:
        return msgspec.json.encode(list(range(len(self._entries(number))))).decode()

    def entry(self, number: int, index: int, column: str) -> object:
        entries = self._entries(number)
        return entries[index].get(column) if 0 <= index < len(entries) else None

    def _entries(self, number: int) -> Sequence[Entry]:
        known = self._known.get(number)
        if known is None:
            with self._trust:
                known = list(self._read(number))
            self._known[number] = known
            if len(self._known) > JOURNALS_KEPT:
                self._known.popitem(last=False)
        return known

    def _read(self, number: int) -> Iterator[Entry]:
        asked = {"number": number, "limit": VALUE_LIMIT_BYTES}
        head = self._connection.execute(self._sql["journal_head"], asked).fetchone()
        if head is None:
            return
        id, seed, accepted_at, argument, outcome, has_ended = head
        used = seeds_of(bytes.fromhex(seed), id)
        yield _command("Input", accepted_at, payload=self._payloads.read(argument), headers=[])
        answers = {
            command: (bool(failed), self._payloads.read(value))
            for command, failed, value in self._connection.execute(self._sql["journal_answers"], asked)
        }
        commands: list[Command] = []
        at = accepted_at
        for place, (content,) in enumerate(self._connection.execute(self._sql["journal_steps"], asked).fetchall()):
            recorded = self._step(content)
            if recorded is None:  # What follows cannot be told without it.
                return
            at = recorded.step.at
            own = next(one for one in reversed(used) if one.first_step <= place)
            yield from _entries_of(recorded, commands, answers, own)
            commands += recorded.step.commands
        found = self._payloads.outcome(outcome) if has_ended else None
        if found is not None:
            yield _command("Output", at, result=_result(found.failed, found.value))

    def _step(self, content: str | bytes | None) -> RecordedStep | None:
        data = self._payloads.read(content)
        if data is None:
            return None
        try:
            return decode_recorded_step(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


def _entries_of(
    recorded: RecordedStep,
    commands: Sequence[Command],
    answers: Mapping[int, tuple[bool, bytes | None]],
    seed: UsedSeed,
) -> Iterator[Entry]:
    step = recorded.step
    kept = {one.command: (one.failed, one.value) for one in recorded.answers}
    for number in step.deliveries:
        if number < 0:
            yield _entry("Notification: Signal", step.at, {"name": "cancel"})
        elif number < len(commands):
            yield _notification(commands[number], number, step.at, kept.get(number) or answers.get(number))
    for number, command in enumerate(step.commands, len(commands)):
        yield _command_entry(command, number, step.at, seed)
    for field, value in (step.changes or {}).items():
        if value is None:
            yield _command("ClearState", step.at, key=field)
        else:
            yield _command("SetState", step.at, key=field, value=value)


def _command_entry(command: Command, number: int, at: int, seed: UsedSeed) -> Entry:
    match command:
        case Call() | Send():
            return _call(command, number, at, seed)
        case Run():
            return _command("Run", at, completion_id=number, name=command.name)
        case Sleep():
            entry = _command("Sleep", at, wake_up_time=command.due // 1000, completion_id=number)
            return {**entry, "sleep_wakeup_at": command.due}
        case GetPromise() | PeekPromise() | CompletePromise():
            kind = type(command).__name__
            return _entry(f"Command: {kind}", at, {"name": "", "promise_name": command.name})
        case Attach():
            return _entry("Command: AttachInvocation", at, {"name": "", "invoked_id": command.invocation_id})
        case GetOutput():
            return _entry("Command: GetInvocationOutput", at, {"name": "", "invoked_id": command.invocation_id})
        case SendSignal() | Cancel():
            name = command.name if isinstance(command, SendSignal) else "cancel"
            return _entry("Command: SendSignal", at, {"name": name, "invoked_id": command.invocation_id})
        case CompleteAwakeable():
            return _entry("Command: CompleteAwakeable", at, {"name": command.id})
        case AwaitSignal():
            return _entry("Command: AwaitSignal", at, {"name": command.name})
        case MakeAwakeable():
            return _entry("Command: Awakeable", at, {"name": ""})
        case _:
            return _entry(f"Command: {type(command).__name__}", at, {"name": ""})


def _call(command: Call | Send, number: int, at: int, seed: UsedSeed) -> Entry:
    """Its callee has an id that follows from the seed (rule C4), also where it has joined another (rule C7)."""
    id = derived_invocation_id(seed.id, seed.random_bytes, number, command.service, command.key)
    parts = [command.service, command.key, command.handler]
    columns = {
        "name": "",
        "invoked_id": id,
        "invoked_target": "/".join(part for part in parts if part is not None),
        "raw": command.argument,
        "raw_length": len(command.argument),
    }
    if isinstance(command, Send):
        return _entry("Command: OneWayCall", at, columns)
    called: dict[str, Any] = {"name": command.service, "handler": command.handler, "scope": None}
    target: dict[str, Any] = {"Service": called}
    if command.key is not None:
        target = {"VirtualObject": {**called, "key": command.key, "handler_ty": "Exclusive"}}
    request = {
        "invocation_id": id,
        "invocation_target": target,
        "span_context": _NO_SPAN,
        "parameter": _bytes_as_numbers(command.argument),
        "headers": [{"name": name, "value": value} for name, value in command.headers.items()],
        "idempotency_key": command.idempotency_key,
        "completion_retention_duration": {"secs": 0, "nanos": 0},
        "journal_retention_duration": {"secs": 0, "nanos": 0},
    }
    told = {"request": request, "invocation_id_completion_id": number, "result_completion_id": number, "name": ""}
    return {**_with_json("Command: Call", at, {"Command": {"Call": told}}, command.argument), **columns}


def _notification(command: Command, number: int, at: int, answer: tuple[bool, bytes | None] | None) -> Entry:
    kind = _NOTIFICATIONS.get(type(command))
    if kind is None:
        return _entry("Notification: Signal", at, {"name": getattr(command, "name", None)})
    if answer is None or kind not in ("Call", "Run", "Sleep"):
        return _entry(f"Notification: {kind}", at, {})
    failed, value = answer
    told: dict[str, Any] = {"completion_id": number}
    if kind != "Sleep":
        told["result"] = _result(failed, value)
    return _with_json(f"Notification: {kind}", at, {"Notification": {"Completion": {kind: told}}}, value)


def _command(kind: str, at: int, **content: Any) -> Entry:
    """An entry that Restate's tools can read as a whole."""
    content.setdefault("name", "")
    raw = content.get("payload", content.get("value"))
    told = {name: _bytes_as_numbers(value) for name, value in content.items()}
    return {"name": content["name"], **_with_json(f"Command: {kind}", at, {"Command": {kind: told}}, raw)}


def _with_json(kind: str, at: int, told: Mapping[str, Any], raw: bytes | None) -> Entry:
    entry = _entry(kind, at, {"raw": raw, "raw_length": None if raw is None else len(raw)})
    encoded = msgspec.json.encode(told)
    if len(encoded) <= JSON_LIMIT_BYTES:
        entry["entry_json"] = encoded.decode()
    return entry


def _entry(kind: str, at: int, columns: Mapping[str, object]) -> Entry:
    return {"entry_type": kind, "appended_at": at, "version": 2, **columns}


def _result(failed: bool, value: bytes | None) -> Mapping[str, Any]:
    if failed:
        error = decode_failure(value or b"")
        return {"Failure": {"code": code_of(error), "message": message_of(error)}}
    return {"Success": _bytes_as_numbers(value or b"")}


def _bytes_as_numbers(value: object) -> object:
    return list(value[:JSON_LIMIT_BYTES]) if isinstance(value, bytes) else value
