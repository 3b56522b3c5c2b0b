"""Sources: records from outside, such as those of a Kafka topic, become messages, each once and in order.

    payments = KafkaSource("broker:9092", "payments")
    runtime = Runtime("sqlite:///app.db", [Account], sources=[Feed(payments, Account.book)])

How far a source was read is kept in the store, in the transition that accepts what was read. So a record is neither
lost nor accepted twice if the process fails in between, and the system outside need not remember anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

from durably.actors.handlers import Handler
from durably.actors.values.type_checks import is_int, is_text
from durably.errors import DefinitionError
from durably.ids import is_storable

__all__ = ["Feed", "IdentifiedSource", "MeasuredSource", "Source", "SourceRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """What a source gives: one message to be."""

    partition: str
    """Records of one partition come in order. A source that has one order has one partition, of any name."""
    position: int
    """Its place in the partition, from 0 on. Later ones are higher; numbers may be left out."""
    key: str | None
    """Which object gets it. Services need none."""
    value: bytes
    """The body, as an HTTP request would have it."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Those of the invocation."""


class Source(Protocol):
    """Where records come from. It is opened again after each failure, its own or the store's.

    Its coroutines run on the event loop of the runtime, one at a time. What they raise is logged, and the source is
    closed and opened again after a while.
    """

    @property
    def name(self) -> str:
        """What its positions are kept under, if the feed has no name of its own."""
        ...

    async def open(self, positions: Mapping[str, int], /) -> Mapping[str, int]:
        """Connect, and go on at these positions: for each partition that was read before, where its next record may be.

        Returns:
            The same for partitions that were not read before. Later ones, which did not exist then, begin at 0.
        """
        ...

    async def poll(self) -> Sequence[SourceRecord]:
        """The next records, those of a partition in order. Wait until there are some; none may be returned at times.

        It may be cancelled at each wait. Records that were given before are passed over.
        """
        ...

    async def close(self) -> None:
        """Let go of what `open` took, also if that failed midway."""
        ...


@runtime_checkable
class MeasuredSource(Source, Protocol):
    """A source that can tell how much there is to read. Without this, nothing is told of how far behind it is."""

    def ends(self) -> Mapping[str, int]:
        """For each partition, the position behind its last record, as far as that is known without waiting."""
        ...


@runtime_checkable
class IdentifiedSource(Source, Protocol):
    """A source that can tell what it reads from something else of the same name, which may have been made anew."""

    def identity(self) -> str | None:
        """What it reads, as a short text; asked when it is open. None: that is not known.

        Where it is not what the store knows, the feed is paused before anything is read: positions say nothing of it.
        """
        ...


class Feed:
    """A source, and the handler that its records go to: of a service, or an exclusive one of a virtual object.

    `name` is what its positions are kept under, by default the name of the source. Under another name the source is
    read from its start again. `in_flight` is how many messages of it wait or run before it is read on, those behind
    paused ones not counted.
    """

    def __init__(
        self, source: Source, to: Handler[..., Any], *, name: str | None = None, in_flight: int = 1_000
    ) -> None:
        """
        Raises:
            DefinitionError: it cannot work.
        """
        if not isinstance(cast("object", to), Handler) or to.owner is None:
            raise DefinitionError(f"Feed(to=...) is a handler, such as Account.book, not {to!r}.")
        name = source.name if name is None else name
        if not is_text(name) or not name or not is_storable(name):
            raise DefinitionError(f"The name of a feed is Unicode text without NUL, and not empty, not {name!r}.")
        if not is_int(cast("object", in_flight)) or in_flight < 1:
            raise DefinitionError(f"Feed(in_flight=...) is a whole number from 1 on, not {in_flight!r}.")
        self.source = source
        self.to = to
        self.name = name
        self.in_flight = in_flight

    def __repr__(self) -> str:
        return f"<Feed {self.name!r} to {self.to}>"
