"""`Conditions`: what the user says must be so in a run: always, in the end, within a while, at times, and how large.

Each is asked of `Snapshots`, the durable state of the objects. A condition raises, or returns False, where it does not
hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias, cast

from durably.actors.definition.binding import BoundActor
from durably.ids import Address
from durably.storage.memory import Disk, MemoryStore
from durably.storage.records import Batch
from durably.testing.harness.accounts import describe
from durably.testing.stores.snapshots import Snapshots
from durably.testing.stores.wrapped import WrappedStore

Condition: TypeAlias = Callable[[Snapshots], object]
"""Is given the state of all objects; it raises, or returns False, where something is wrong."""


class InvariantError(AssertionError):
    """A condition of the user's does not hold. `read` are the objects that it looked at."""

    def __init__(self, message: str, read: Iterable[Address] = ()) -> None:
        super().__init__(message)
        self.read = tuple(read)


class InTheEnd(NamedTuple):
    """A condition that has to come true in the end."""

    condition: Condition
    within_us: int


class Conditions:
    """The conditions of one run. `fail` is told of the first that does not hold."""

    def __init__(self, disk: Disk, fail: Callable[[BaseException], None], snapshots: Callable[[], Snapshots]) -> None:
        self.in_the_end: list[InTheEnd] = []
        self.largest: dict[str, int] = {}
        """The largest durable state of an object, in bytes, by class."""
        self._disk = disk
        self._fail = fail
        self._snapshots = snapshots
        self._always: list[Condition] = []
        self._sometimes: dict[str, Condition | None] = {}
        """By name; None: it has come true."""
        self._bounds: dict[str, int] = {}

    def always(self, condition: Condition) -> None:
        """It is asked at once, too: no commit may come after."""
        if self.check(plain(condition), self._snapshots(), "when it is registered"):
            self._always.append(condition)

    def sometimes(self, name: str, condition: Condition | bool) -> None:
        if isinstance(condition, bool):
            self._sometimes[name] = None if condition else self._sometimes.get(name, _never)
        else:
            self._sometimes[name] = plain(condition)
            self._notice(self._snapshots())

    def bounded(self, service: str, most_bytes: int) -> None:
        if most_bytes < 1:
            raise ValueError(f"bounded(bytes=...) is a number of bytes from 1 on, not {most_bytes}.")
        self._bounds[service] = most_bytes
        for address in self._disk.state:
            if address.service == service:
                self._measure(address)

    def met(self) -> Mapping[str, int]:
        """Whether each condition that has to be true at times was: 1, or 0."""
        return {name: 1 if condition is None else 0 for name, condition in self._sometimes.items()}

    def after_commit(self, batch: Batch, snapshots: Snapshots) -> None:
        """A batch is on the disk: check every condition that is checked then."""
        for address in dict.fromkeys(record.address for record in batch.state):
            self._measure(address)
        self._ask_all(snapshots, "after a commit")

    def at_the_end(self) -> None:
        """The run is over. A condition may depend on more than the durable state, so it is asked once more."""
        self._ask_all(self._snapshots(), "at the end")

    def check(self, condition: Condition, snapshots: Snapshots, when: str) -> bool:
        """Fail the run unless it holds; whether it does."""
        snapshots.read.clear()
        try:
            if _answer(condition, snapshots):
                return True
            self._fail(InvariantError(f"{name_of(condition)} does not hold {when}.", snapshots.read))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # pytest.fail raises what is no Exception.
            told = InvariantError(f"{name_of(condition)} does not hold {when}: {describe(error)}", snapshots.read)
            told.__cause__ = error
            self._fail(told)
        return False

    def _ask_all(self, snapshots: Snapshots, when: str) -> None:
        for condition in self._always:
            self.check(condition, snapshots, when)
        self._notice(snapshots)

    def _notice(self, snapshots: Snapshots) -> None:
        """See which conditions that have to be true at times are true now."""
        for name, awaited in self._sometimes.items():
            try:
                if awaited is not None and holds(awaited, snapshots):
                    self._sometimes[name] = None
            except InvariantError as error:
                self._fail(error)

    def _measure(self, address: Address) -> None:
        fields = self._disk.state.get(address, {})  # What is not loaded with the object may be of any size.
        size = sum(len(name) + len(value) for name, value in fields.items())
        service, key = address
        if not service:  # What tells a codec, and of no object.
            return
        if size > self.largest.get(service, 0):
            self.largest[service] = size
        most = self._bounds.get(service)
        if most is not None and size > most:
            largest = max(fields, key=lambda name: len(fields[name]))
            self._fail(
                InvariantError(
                    f"The state of {service}/{key} has {size:,} bytes, and at most {most:,} are allowed by "
                    f"bounded(). The largest field is {largest!r} with {len(fields[largest]):,} bytes."
                )
            )


class WatchedStore(WrappedStore):
    """A store in memory that asks conditions after every commit."""

    def __init__(
        self,
        store: MemoryStore,
        actors: Callable[[], Mapping[str, BoundActor]],
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(store)
        self._disk = store.disk
        self._actors = actors
        self.conditions = Conditions(store.disk, fail, lambda: self.snapshots(actors()))

    def snapshots(self, actors: Mapping[str, BoundActor]) -> Snapshots:
        """The state of all objects of these actors, as it is stored."""
        return Snapshots(self._disk, actors)

    async def commit(self, batch: Batch, /) -> None:
        await super().commit(batch)
        self.conditions.after_commit(batch, self.snapshots(self._actors()))


def plain(condition: Condition) -> Condition:
    """The condition itself.

    Raises:
        TypeError: it is no plain function.
    """
    if not callable(cast(object, condition)) or inspect.iscoroutinefunction(condition):
        raise TypeError(
            f"A condition is a plain function of the snapshots, which raises or returns False; {condition!r} is not."
        )
    return condition


def holds(condition: Condition, snapshots: Snapshots) -> bool:
    """Whether it is true now; an assertion that fails means no.

    Raises:
        InvariantError: the condition failed with another error, which is the cause.
    """
    try:
        return _answer(condition, snapshots)
    except AssertionError:
        return False
    except Exception as error:
        raise InvariantError(f"{name_of(condition)} failed: {describe(error)}", snapshots.read) from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # pytest.fail
        return False


def _answer(condition: Condition, snapshots: Snapshots) -> bool:
    """What it says.

    Raises:
        TypeError: it has to be awaited.
        What it raises.
    """
    answer = condition(snapshots)
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("it returned something to await. A condition is a plain function of the snapshots.")
    return answer is not False


def name_of(condition: Condition) -> str:
    """A condition, for people."""
    return f"The condition {getattr(condition, '__qualname__', repr(condition))}"


def _never(snapshots: Snapshots) -> bool:
    return False
