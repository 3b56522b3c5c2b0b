"""`Snapshots`: the state of all objects as it is on the disk, typed, for invariants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Never, TypeVar, cast

from durably.actors.actor import VirtualObject, Workflow
from durably.actors.definition.binding import BoundActor
from durably.actors.definition.definition import definition_of
from durably.actors.large_state import DurableDict, DurableList
from durably.actors.protocol.entries import FieldChanges
from durably.actors.protocol.port import Flush
from durably.ids import Address, EntryKey, visible_state
from durably.storage.memory import Disk

ObjectT = TypeVar("ObjectT", bound=VirtualObject | Workflow)


class Snapshots:
    """Each object as it was after its last completed invocation.

    `snapshots[Ticket, "2B"]` is a Ticket whose fields can be read and nothing else; one that was never touched has its
    defaults. `snapshots.of(Ticket)` are all that have any state, by key; `snapshots.by_name(Ticket, "2B")` is the state
    of one by stored name.
    """

    def __init__(self, disk: Disk, actors: Mapping[str, BoundActor]) -> None:
        self.read: dict[Address, None] = {}
        """The objects that were looked at."""
        self._disk = disk
        self._actors = actors

    def __getitem__(self, which: tuple[type[ObjectT], str]) -> ObjectT:
        actor, key = which
        return self._object(actor, key)

    def by_name(self, actor: type[VirtualObject] | type[Workflow], key: str) -> Mapping[str, Any]:
        """The state of an object by stored name, what was set with `ctx.set` too."""
        name = definition_of(actor).name
        stored = self._stored(name, key)
        bound = self._bound(name)
        large = bound.large_fields()
        return {field: bound.decode_state(field, value) for field, value in stored.items() if field not in large}

    def entries(self, actor: type[VirtualObject] | type[Workflow], key: str, field: str) -> Any:
        """What a field keeps that is not loaded with its object, by stored name: a dict, a list, or a value or None."""
        name = definition_of(actor).name
        large = self._bound(name).large_fields().get(field)
        if large is None:
            raise KeyError(f"{name} has no field {field!r} that is not loaded with its object.")
        address = Address(name, key)
        self.read[address] = None
        stored = self._disk.entries.get(address, {}).get(field)
        values = {} if stored is None else {key: large.decode(stored.values[key]) for key in stored.keys}
        if large.kind is DurableDict:
            return {large.user_key(key): value for key, value in values.items()}
        return [*values.values()] if large.kind is DurableList else next(iter(values.values()), None)

    def of(self, actor: type[ObjectT]) -> Mapping[str, ObjectT]:
        """All objects of a class that have any state, by key."""
        name = definition_of(actor).name
        stored = {*self._disk.state, *self._disk.entries}
        keys = sorted(address.key for address in stored if address.service == name)
        return {key: self._object(actor, key) for key in keys}

    def _object(self, actor: type[ObjectT], key: str) -> ObjectT:
        name = definition_of(actor).name
        bound = self._bound(name)
        stored = self._stored(name, key)
        return cast("ObjectT", bound.instance(key, ReadOnlyPort(stored), writable=False))

    def _stored(self, name: str, key: str) -> Mapping[str, bytes]:
        address = Address(name, key)
        self.read[address] = None
        stored = self._disk.state.get(address, {})
        return visible_state(stored)

    def _bound(self, name: str) -> BoundActor:
        if name not in self._actors:
            raise KeyError(f"The simulation does not run {name}.")
        return self._actors[name]


class ReadOnlyPort:
    """A `Port` that only knows state. Satisfies `durably.actors.protocol.port.Port`."""

    invocation_id = ""
    is_hosted = False
    coding = None

    def __init__(self, fields: Mapping[str, bytes]) -> None:
        self._fields = fields

    def read_field(self, name: str, /) -> bytes | None:
        return self._fields.get(name)

    def field_names(self) -> Sequence[str]:
        return sorted(self._fields)

    def check(self, what: object, /) -> None:
        """Reading is always allowed."""

    takes_cancel = False
    failure = None

    def has_to_undo(self, change: int, /) -> None:
        """No handler runs here."""

    def compensates(self, change: int, /) -> None:
        """No handler runs here."""

    def watch_fields(self, flush: Flush, /) -> None:
        """What is changed in place is changed in a copy."""

    def write_field(self, name: str, value: bytes | None, /) -> Never:
        _refuse(f"The field {name!r} was written")

    def own_entries(self, field: str, /) -> FieldChanges:
        return FieldChanges()

    def write_entry(self, field: str, key: EntryKey, value: bytes | None, /) -> Never:
        _refuse(f"The field {field!r} was written")

    def restore_entry(self, field: str, key: EntryKey, /) -> Never:
        _refuse(f"The field {field!r} was written")

    def clear_entries(self, field: str, /) -> Never:
        _refuse(f"The field {field!r} was written")

    def handler_name(self) -> Never:
        _refuse("The handler was asked for")

    def request(self) -> Never:
        _refuse("A request was asked for")

    def headers(self) -> Never:
        _refuse("The headers were asked for")

    def at(self) -> Never:
        _refuse("The time was asked for")

    def random(self) -> Random:
        _refuse("Randomness was asked for")

    def uuid_bits(self) -> Never:
        _refuse("A UUID was asked for")

    def issue(self, *args: Any) -> Never:
        _refuse("A command was issued")

    issue_send = issue_run = issue_one_way = issue_signal = issue_awakeable = awakeable = issue
    issue_known = issue_taking = issue

    def continue_as_new(self, argument: bytes, /) -> Never:
        _refuse("A new execution was asked for")

    def callee_id(self, *args: Any) -> Never:
        _refuse("An id was asked for")

    def patched(self, *args: Any) -> Never:
        _refuse("A change of the code was asked for")

    def tell(self, *args: Any) -> Never:
        _refuse("Something was measured")

    def log(self, *args: Any) -> Never:
        _refuse("A line was logged")

    @property
    def serde(self) -> Any:
        return None

    @property
    def runtime_serde(self) -> Any:
        return None

    @property
    def loop(self) -> Any:
        _refuse("A loop was asked for")


def _refuse(what: str) -> Never:
    raise TypeError(f"{what} on the snapshot of an object. A snapshot can only be read.")
