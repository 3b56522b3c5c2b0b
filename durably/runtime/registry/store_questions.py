"""`StoreQuestions`: what handlers and callers ask the store besides their own object, and when (rule P6).

A question is put to the store once all that is in the log when it comes is durable: the asker reads what was done
before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from durably.actors.protocol.commands import Question
from durably.errors import InvalidArgumentError, UnreadableRecordError
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.registry.questions import answer
from durably.storage.store import Store

Answer: TypeAlias = bytes | UnreadableRecordError | InvalidArgumentError


class Asked(NamedTuple):
    """A question, until it is answered."""

    question: Question
    then: Callable[[Answer], None]


class StoreQuestions:
    """The questions of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        background: Background,
        committer: Committer,
        ready: ReadyQueue,
        store: Store,
    ) -> None:
        self._incarnation = incarnation
        self._background = background
        self._committer = committer
        self._host = asyncio.get_running_loop()
        self._ready = ready
        self._store = store

    def ask(self, question: Question, then: Callable[[Answer], None]) -> None:
        """`then` is called with the answer, in a callback of its own."""
        self._committer.when_durable(self._begin, Asked(question, then))

    def _begin(self, asked: Asked) -> None:
        self._background.spawn(self._ask(asked))

    async def _ask(self, asked: Asked) -> None:
        try:
            found: Answer = await answer(self._store, asked.question)
        except (UnreadableRecordError, InvalidArgumentError) as error:
            found = error
        # Back on the host loop, but in a plain callback: answers lead to advances.
        self._host.call_soon(self._tell, asked, found)

    def _tell(self, asked: Asked, found: Answer) -> None:
        if not self._incarnation.dead:
            asked.then(found)
            self._ready.schedule()
