"""`Topic`: a system outside that gives records, for tests of feeds and for simulations. Crashes do not touch it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from durably.sources import SourceRecord


class Topic:
    """Partitions of records, kept for ever. Those of one key are in one partition.

    topic = Topic(partitions=2)
    async with Harness(Account, sources=[Feed(TopicSource(topic), Account.book)]) as app:
        topic.put(b"7", key="mary")
        await app.settle()
    """

    def __init__(self, name: str = "topic", partitions: int = 1) -> None:
        self.name = name
        self.partitions: dict[str, list[SourceRecord]] = {f"{number}": [] for number in range(partitions)}
        self._news: list[asyncio.Future[None]] = []

    def put(self, value: bytes, *, key: str | None = None, headers: Mapping[str, str] | None = None) -> SourceRecord:
        """Add a record behind those of its partition, which follows from its key."""
        number = sum((key or "").encode()) % len(self.partitions)
        records = self.partitions[f"{number}"]
        record = SourceRecord(
            partition=f"{number}", position=len(records), key=key, value=value, headers=dict(headers or {})
        )
        records.append(record)
        news, self._news = self._news, []
        for one in news:
            if not one.done():
                one.set_result(None)
        return record

    async def news(self) -> None:
        """Wait for the next `put`."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.append(one)
        await one


class TopicSource:
    """Reads a `Topic`. Satisfies `durably.sources.Source`."""

    def __init__(self, topic: Topic, *, most_at_once: int = 100) -> None:
        self._topic = topic
        self._most_at_once = most_at_once
        self._next: dict[str, int] = {}
        self.opened = 0
        """So many times it was opened."""

    @property
    def name(self) -> str:
        return self._topic.name

    async def open(self, positions: Mapping[str, int], /) -> Mapping[str, int]:
        self.opened += 1
        self._next = {partition: positions.get(partition, 0) for partition in self._topic.partitions}
        return self._next

    async def poll(self) -> Sequence[SourceRecord]:
        while True:
            records: list[SourceRecord] = []
            for partition, position in self._next.items():
                room = self._most_at_once - len(records)
                some = self._topic.partitions[partition][position : position + room]
                records += some
                self._next[partition] += len(some)
            if records:
                return records
            await self._topic.news()

    def ends(self) -> Mapping[str, int]:
        return {partition: len(records) for partition, records in self._topic.partitions.items()}

    async def close(self) -> None:
        """There is nothing to let go of."""
