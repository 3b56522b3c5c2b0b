"""`KafkaSource`: the records of a Kafka topic, for a `Feed`. Needs the extra `kafka`.

    payments = KafkaSource("broker:9092", "payments")
    runtime = Runtime("sqlite:///app.db", [Account], sources=[Feed(payments, Account.book)])

It reads all partitions of the topic, and belongs to no consumer group: what was read is known to the store of the
runtime, which commits it with the messages that it became. Offsets that Kafka kept beside could only be wrong.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from types import new_class
from typing import Any, Literal, cast

from durably.errors import DefinitionError
from durably.sources import SourceRecord

try:
    # It has no types.
    _kafka: Any = import_module("aiokafka")
    _admin: Any = import_module("aiokafka.admin")
    _errors: Any = import_module("aiokafka.errors")
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("durably.kafka needs the extra `kafka`: pip install 'durably[kafka]'") from error

__all__ = ["KafkaSource"]

_OWN_OPTIONS = ("auto_offset_reset", "bootstrap_servers", "enable_auto_commit", "group_id")
_LOOK_SECONDS = 15.0
"""How often it looks for new partitions."""
_METADATA, _FIRST_WITH_IDS = 3, 10
"""The request of Kafka's protocol, and its version."""
_UUID_BYTES = 16
_log = logging.getLogger("durably")


class KafkaSource:
    """Reads a topic. Satisfies `durably.sources.Source`.

    The key of a record, as UTF-8, is that of the object. The value is the body of the message; a record without one
    has an empty body. Headers that are lines of text go with it, and `kafka.topic`, `kafka.partition`, `kafka.offset`
    and `kafka.timestamp`.

    `start` says where it begins where the store knows nothing of the topic: with the oldest records that Kafka has, or
    with those that come from now on. A partition that is added later is read from its first record on. `options` are
    those of `aiokafka.AIOKafkaConsumer`, such as `security_protocol` and `ssl_context`. Records of transactions are
    read once these are committed.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        topic: str,
        *,
        start: Literal["beginning", "now"] = "beginning",
        records_at_once: int = 500,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Raises:
            DefinitionError: it cannot work.
        """
        given = dict(options or {})
        for name in given:
            if name in _OWN_OPTIONS:
                raise DefinitionError(
                    f"KafkaSource sets {name} itself, since positions are kept in the store. Leave it out of options=."
                )
        if start not in ("beginning", "now"):
            raise DefinitionError(f'KafkaSource(start=...) is "beginning" or "now", not {start!r}.')
        self._servers = bootstrap_servers if isinstance(bootstrap_servers, str) else [*bootstrap_servers]
        self._topic = topic
        self._start = start
        self._records_at_once = records_at_once
        self._options = {"isolation_level": "read_committed", **given}
        self._consumer: Any = None
        self._inspector: Any = None
        self._looked_at = 0.0
        self._identity: str | None = None
        self._ends: dict[str, int] = {}

    @property
    def name(self) -> str:
        return self._topic

    # ------------------------------------------------------------------ its life

    async def open(self, positions: Mapping[str, int], /) -> Mapping[str, int]:
        known = inspect.signature(_admin.AIOKafkaAdminClient).parameters
        options = {name: value for name, value in self._options.items() if name in known}
        self._inspector = _admin.AIOKafkaAdminClient(bootstrap_servers=self._servers, **options)
        await self._inspector.start()
        self._consumer = _kafka.AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            enable_auto_commit=False,
            auto_offset_reset="none",
            **self._options,
        )
        await self._consumer.start()
        there = await self._partitions()
        gone = positions.keys() - {str(one.partition) for one in there}
        if gone and self._identity is None:  # Otherwise the identity says so.
            raise RuntimeError(
                f"{self._topic} has no partition {', '.join(sorted(gone))} any more, from which records were read: the "
                "topic was made anew. Read it under another name=."
            )
        new = [one for one in there if str(one.partition) not in positions]
        is_known = bool(positions)
        begins: Mapping[Any, int] = {}
        if new and self._start == "now" and not is_known:
            begins = await self._consumer.end_offsets(new)
        elif new:
            begins = await self._consumer.beginning_offsets(new)
        first = {str(one.partition): offset for one, offset in begins.items()}
        self._assign(there, {**first, **positions})
        return first

    async def close(self) -> None:
        consumer, inspector = self._consumer, self._inspector
        self._consumer = self._inspector = None
        with suppress(Exception):
            if consumer is not None:
                await consumer.stop()
        if inspector is not None:
            await inspector.close()

    # ------------------------------------------------------------------ records

    async def poll(self) -> Sequence[SourceRecord]:
        if asyncio.get_running_loop().time() - self._looked_at > _LOOK_SECONDS:
            await self._take_in_new()
        try:
            found: Mapping[Any, Sequence[Any]] = await self._consumer.getmany(
                timeout_ms=int(_LOOK_SECONDS * 1_000), max_records=self._records_at_once
            )
        except _errors.OffsetOutOfRangeError as error:
            await self._go_on_behind_gap(error.args[0])
            return []
        for partition in self._consumer.assignment():
            end: int | None = self._consumer.highwater(partition)
            if end is not None:
                self._ends[str(partition.partition)] = end
        return [self._record(one) for records in found.values() for one in records]

    def ends(self) -> Mapping[str, int]:
        """As the brokers said at the last poll. Offsets that hold no record, such as marks of transactions, count."""
        return self._ends

    def identity(self) -> str | None:
        """The id of the topic, which another topic of its name has not. Brokers tell it from Kafka 2.8 on."""
        return self._identity

    def _record(self, record: Any) -> SourceRecord:
        # What is no UTF-8 is refused as a key, with what it is.
        key = None if record.key is None else record.key.decode("utf-8", "surrogateescape")
        return SourceRecord(
            partition=str(record.partition),
            position=record.offset,
            key=key,
            value=record.value or b"",
            headers={
                **_texts(record.headers),
                "kafka.topic": record.topic,
                "kafka.partition": str(record.partition),
                "kafka.offset": str(record.offset),
                "kafka.timestamp": str(record.timestamp),
            },
        )

    async def _go_on_behind_gap(self, lost: Mapping[Any, int]) -> None:
        """Kafka has forgotten records before they were read, which its retention allows.

        Raises:
            RuntimeError: the topic ends before what was read.
        """
        begins: Mapping[Any, int] = await self._consumer.beginning_offsets([*lost])
        for partition, position in lost.items():
            begin = begins[partition]
            if position > begin:
                raise RuntimeError(
                    f"The partition {partition.partition} of {self._topic} ends before {position}, where its next "
                    "record was to be: the topic was made anew, or has lost records. Read it under another name=."
                )
            _log.warning(
                "Kafka has deleted the records %d to %d of the partition %d of %s before they were read",
                position, begin - 1, partition.partition, self._topic,
            )  # fmt: skip
            self._consumer.seek(partition, begin)

    # ------------------------------------------------------------------ partitions

    async def _partitions(self) -> list[Any]:
        """
        Raises:
            LookupError: there is no such topic.
        """
        self._looked_at = asyncio.get_running_loop().time()
        told = await self._described()
        id: bytes = told.get("topic_id", b"")
        self._identity = f"the topic {id.hex()}" if any(id) else None
        numbers = sorted(one["partition"] for one in told["partitions"])
        if told["error_code"] or not numbers:
            code = told["error_code"]
            raise LookupError(f"Kafka has no topic {self._topic!r} that can be read (its error code is {code}).")
        return [_kafka.TopicPartition(self._topic, number) for number in numbers]

    async def _described(self) -> Mapping[str, Any]:
        """What the brokers tell of the topic; with its id, if they and the client can."""
        if _TOPIC_REQUEST is not None:
            with suppress(NotImplementedError, _errors.IncompatibleBrokerVersion):
                answer = await self._inspector._send_request(_TOPIC_REQUEST(self._topic))
                (with_id,) = answer.to_object()["topics"]
                return cast("Mapping[str, Any]", with_id)
        (told,) = await self._inspector.describe_topics([self._topic])
        return cast("Mapping[str, Any]", told)

    async def _take_in_new(self) -> None:
        """A partition that was added is read from its first record on.

        Raises:
            RuntimeError: it is another topic of the same name.
        """
        before = self._identity
        there = await self._partitions()
        if self._identity != before:
            raise RuntimeError(f"The topic {self._topic} was made anew while it was read.")
        known: Iterable[Any] = self._consumer.assignment()
        if {*there} - {*known}:
            positions = {str(one.partition): await self._consumer.position(one) for one in known}
            self._assign(there, positions)

    def _assign(self, partitions: Sequence[Any], positions: Mapping[str, int]) -> None:
        self._consumer.assign(partitions)
        for one in partitions:
            self._consumer.seek(one, positions.get(str(one.partition), 0))


def _topic_request() -> Any:
    """A request for the metadata of one topic, of the first version that tells its id; None: the client is too old."""
    try:
        api, types = import_module("aiokafka.protocol.api"), import_module("aiokafka.protocol.types")
        text, numbers, tags = types.CompactString("utf-8"), types.CompactArray(types.Int32), types.TaggedFields
        broker = (("node_id", types.Int32), ("host", text), ("port", types.Int32), ("rack", text), ("tags", tags))
        partition = (
            ("error_code", types.Int16), ("partition", types.Int32), ("leader", types.Int32), ("epoch", types.Int32),
            ("replicas", numbers), ("isr", numbers), ("offline", numbers), ("tags", tags),
        )  # fmt: skip
        topic = (
            ("error_code", types.Int16), ("topic", text), ("topic_id", _Uuid), ("is_internal", types.Boolean),
            ("partitions", types.CompactArray(*partition)), ("operations", types.Int32), ("tags", tags),
        )  # fmt: skip
        answer = types.Schema(
            ("throttle_time_ms", types.Int32), ("brokers", types.CompactArray(*broker)), ("cluster_id", text),
            ("controller_id", types.Int32), ("topics", types.CompactArray(*topic)), ("operations", types.Int32),
            ("tags", tags),
        )  # fmt: skip
        asked = types.CompactArray(("topic_id", _Uuid), ("topic", text), ("tags", tags))
        flags = [(name, types.Boolean) for name in ("creates", "cluster_operations", "topic_operations")]
        version: dict[str, Any] = {"API_KEY": _METADATA, "API_VERSION": _FIRST_WITH_IDS}
        response = new_class("TopicResponse", (api.Response,), exec_body=_body(version | {"SCHEMA": answer}))
        question = types.Schema(("topics", asked), *flags, ("tags", tags))
        own = version | {"SCHEMA": question, "RESPONSE_TYPE": response, "FLEXIBLE_VERSION": True}
        struct = new_class("TopicStruct", (api.RequestStruct,), exec_body=_body(own))
        request = {"API_KEY": _METADATA, "__init__": _remember_topic, "build": _build_topic_request}
        return new_class("TopicRequest", (api.Request[struct],), exec_body=_body(request))
    except (ImportError, AttributeError, TypeError):  # aiokafka before 0.13.
        return None


class _Uuid:
    """How Kafka writes one."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(_UUID_BYTES)

    @classmethod
    def repr(cls, value: bytes) -> str:
        return value.hex()


def _remember_topic(self: Any, topic: str) -> None:
    self.topic = topic


def _build_topic_request(self: Any, struct: Any) -> Any:
    # As the client itself asks, a topic that is not there is made if the brokers do that.
    return struct([(bytes(_UUID_BYTES), self.topic, {})], True, False, False, {})


def _body(members: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.update(members)


_TOPIC_REQUEST = _topic_request()


def _texts(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """The headers that are lines of text."""
    found: dict[str, str] = {}
    for name, value in headers:
        with suppress(UnicodeDecodeError, AttributeError):  # A header may have no value.
            text = value.decode()
            if name.isprintable() and text.isprintable():
                found[name] = text
    return found
