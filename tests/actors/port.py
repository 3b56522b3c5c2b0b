"""A port for tests: it records what a handler asks for, and lets the test answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Never, TypeVar

from durably.actors.protocol.coding import CodingMeter
from durably.actors.protocol.commands import Command, MakeAwakeable, Run, Send, SendSignal
from durably.actors.protocol.entries import EntryChanges, FieldChanges
from durably.actors.protocol.operations import CallSite, Operation
from durably.actors.protocol.popped import PoppedEntry, Pops
from durably.actors.protocol.port import Action, Flush, Sent
from durably.actors.protocol.request import Request
from durably.actors.values.serde import SerdeFactory
from durably.errors import WrongContextError
from durably.ids import EntryKey, SystemEntropy, awakeable_id, new_identity

R = TypeVar("R")

INVOCATION_ID, SEED = new_identity(SystemEntropy(), "Service", None)


class ContinueAsNew(BaseException):
    """What a port raises to unwind a handler."""


class FakePort:
    """State in a dict, commands in a list, answers by number of the command."""

    def __init__(self, state: Mapping[str, bytes] | None = None) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self.loop.close()  # Operations only need to know it.
        self.invocation_id = "inv_test"
        self.coding: CodingMeter | None = None
        self.serde: SerdeFactory | None = None
        self.runtime_serde: SerdeFactory | None = None
        self.state = dict(state or {})
        self.entries = EntryChanges()
        self.commands: list[Command] = []
        self.actions: list[Action[Any]] = []
        self.operations: list[Operation[Any]] = []
        self.whats: list[object] = []
        self.sites: list[CallSite] = []
        self.answers: dict[int, bytes] = {}
        self.flushes: list[Flush] = []
        self.lines: list[tuple[str, str, Mapping[str, Any]]] = []
        self.now = 1_700_000_000_000_000
        self.awakeables: dict[str, Operation[Any]] = {}
        self.closed = False

    def check(self, what: object, /) -> None:
        if self.closed:
            raise WrongContextError(f"{what} is used outside its handler.")

    def handler_name(self) -> str:
        return "Fake/run"

    def request(self) -> Request:
        return Request(
            id="inv_1",
            headers={"a": "b"},
            body=b"{}",
            idempotency_key=None,
            deadline=None,
            attempt=1,
        )

    def headers(self) -> Mapping[str, str]:
        return {"a": "b"}

    def at(self) -> int:
        self.check("now")
        return self.now

    def random(self) -> Random:
        self.check("random")
        return Random(7)

    def uuid_bits(self) -> int:
        self.check("uuid")
        return 2**127 + 5

    def issue(self, command: Command, decode: Callable[[bytes], R], what: object, site: CallSite, /) -> Operation[R]:
        self.check(what)
        return self._issued(command, what, site, decode)

    def issue_send(self, command: Send, sent: Sent[R], what: object, site: CallSite, /) -> Operation[R]:
        self.check(what)
        operation: Operation[R] = self._operation(command, what, site)
        operation.set_result(sent(f"inv_callee{len(self.commands) - 1}"))
        return operation

    def continue_as_new(self, argument: bytes, /) -> Never:
        self.check("continue_as_new")
        raise ContinueAsNew(argument)

    def issue_one_way(self, command: Command, what: object, site: CallSite, /) -> Operation[None]:
        self.check(what)
        operation: Operation[None] = self._operation(command, what, site)
        operation.set_result(None)
        return operation

    def issue_run(
        self, command: Run, action: Action[R], decode: Callable[[bytes], R], site: CallSite, /
    ) -> Operation[R]:
        self.check("run")
        self.actions.append(action)
        return self._issued(command, f"run {command.name!r}", site, decode)

    def issue_signal(self, command: SendSignal, what: object, site: CallSite, /) -> Operation[None]:
        self.check(what)
        return self._issued(command, what, site, lambda _: None)

    def issue_awakeable(self, decode: Callable[[bytes], Any], site: CallSite, /) -> str:
        self.check("an awakeable")
        id = awakeable_id(INVOCATION_ID, SEED, len(self.commands))
        self.awakeables[id] = self._issued(MakeAwakeable(), "awakeable", site, decode)
        return id

    def callee_id(self, call: object, service: str, key: str | None, /) -> str | None:
        return next((f"inv_callee{at}" for at, one in enumerate(self.operations) if one is call), None)

    def awakeable(self, id: str, /) -> Operation[Any] | None:
        return self.awakeables.get(id)

    def _issued(self, command: Command, what: object, site: CallSite, decode: Callable[[bytes], R]) -> Operation[R]:
        operation: Operation[R] = self._operation(command, what, site)
        answer = self.answers.get(len(self.commands) - 1)
        if answer is not None:
            operation.set_result(decode(answer))
        return operation

    def _operation(self, command: Command, what: object, site: CallSite) -> Operation[Any]:
        self.commands.append(command)
        self.whats.append(what)
        self.sites.append(site)
        operation: Operation[Any] = Operation(loop=self.loop, what=what, site=site)
        self.operations.append(operation)
        return operation

    def read_field(self, name: str, /) -> bytes | None:
        self.check(f"reading {name}")
        return self.state.get(name)

    def field_names(self) -> Sequence[str]:
        self.check("the names of the state")
        return sorted(self.state)

    def write_field(self, name: str, value: bytes | None, /) -> None:
        self.check(f"writing {name}")
        if value is None:
            self.state.pop(name, None)
        else:
            self.state[name] = value

    takes_cancel = False
    failure = None
    is_hosted = False

    def has_to_undo(self, change: int, /) -> None:
        pass

    def compensates(self, change: int, /) -> None:
        pass

    def own_entries(self, field: str, /) -> FieldChanges:
        return self.entries.changed(field)

    def write_entry(self, field: str, key: EntryKey, value: bytes | None, /) -> None:
        self.check(f"writing {field}")
        self.entries.changed(field).set(key, value)

    def restore_entry(self, field: str, key: EntryKey, /) -> None:
        self.entries.changed(field).restore(key)

    def clear_entries(self, field: str, /) -> None:
        self.check(f"writing {field}")
        self.entries.changed(field).clear()

    def issue_known(self, result: R, what: object, site: CallSite, /) -> Operation[R]:
        operation: Operation[R] = Operation(loop=self.loop, what=what, site=site)
        operation.set_result(result)
        return operation

    def issue_taking(
        self,
        command: Command | None,
        decode: Callable[[bytes], R],
        what: object,
        site: CallSite,
        pops: Pops,
        entry: PoppedEntry,
        /,
    ) -> Operation[R]:
        if command is None:
            return self.issue_known(entry.result, what, site)
        return self.issue(command, decode, what, site)

    def watch_fields(self, flush: Flush, /) -> None:
        self.flushes.append(flush)

    def flushed(self) -> dict[str, bytes | None]:
        """What the end of a step would find changed; kept as the state from then on."""
        changes = {name: value for flush in self.flushes for name, value in flush().items()}
        for name, value in changes.items():
            self.write_field(name, value)
        return changes

    def patched(self, change: str, /) -> bool:
        self.check("patched")
        return True

    def tell(self, hear: Callable[[R], object], fact: R, /) -> None:
        hear(fact)

    def log(self, level: str, event: str, fields: Mapping[str, Any], /) -> None:
        self.lines.append((level, event, fields))


def finished(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing that has not been answered."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("The coroutine waits for an answer that the test did not give.")


def issue(operation: object) -> None:
    """Says to readers and checkers that an operation is issued on purpose and not awaited."""
    assert operation is not None
