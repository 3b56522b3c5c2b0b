"""`BatchedLookup`: questions to the store, collected within one tick of the host loop and asked as one query (rule L3).

An answer is handed to its callbacks in one go, synchronously, so that the asking code can decide and append before
anything else happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")

QUESTIONS_PER_QUERY = 500


class BatchedLookup(Generic[K, A]):
    """Questions of one kind."""

    def __init__(
        self,
        incarnation: Incarnation,
        ready: ReadyQueue,
        ask: Callable[[Sequence[K]], Coroutine[Any, Any, Callable[[K], A]]],
        *,
        durable: Callable[[], int],
        gate: Callable[[Callable[[Any], None], Any], None] | None = None,
    ) -> None:
        """`ask` answers many at once; `durable` says up to where the log is.

        A question that is already under way is not asked again: both wait for the same answer.

        With a `gate`, which says when asking may begin, the answer is read after that, so everybody asks anew: what is
        under way may have been read before the gate opened.
        """
        self._incarnation = incarnation
        self._ready = ready
        self._ask = ask
        self._host = asyncio.get_running_loop()
        self._durable = durable
        self._gate = gate
        self._began: dict[int, int] = {}
        """Up to where the log was durable when each query that is under way began, oldest first."""
        self._queries = 0
        self._collected: dict[K, list[Callable[[A], None]]] = {}
        self.outstanding = 0
        """Callbacks that have not heard an answer."""
        self._asked: dict[K, list[Callable[[A], None]]] = {}
        """What is under way, without a gate."""
        self._scheduled = False
        self._dead = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._answer_waiter: asyncio.Future[None] | None = None

    def __call__(self, question: K, then: Callable[[A], None], /) -> None:
        """Ask; `then` hears the answer."""
        self.outstanding += 1
        asked = self._asked.get(question)
        if asked is not None:
            asked.append(then)
            return
        self._collected.setdefault(question, []).append(then)
        if not self._scheduled:
            self._scheduled = True
            self._host.call_soon(self._close_group)

    @property
    def knows_up_to(self) -> int | None:
        """Every answer to come knows what the log held up to here; None: no answer is to come."""
        return next(iter(self._began.values()), None)

    async def next_answer(self) -> None:
        """Wait until something has been answered, or nothing will be."""
        if self._answer_waiter is None:
            self._answer_waiter = self._host.create_future()
        await asyncio.shield(self._answer_waiter)

    def kill(self) -> None:
        """No answer is wanted any more."""
        self._dead = True
        self.outstanding = 0
        self._collected.clear()
        self._asked.clear()
        self._began.clear()
        self._tell_waiter()

    async def finish(self) -> None:
        """Wait until no question is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _close_group(self) -> None:
        """What was asked in this tick is asked together; what comes later has a gate of its own."""
        self._scheduled = False
        group, self._collected = self._collected, {}
        if self._dead or not group:
            return
        if self._gate is None:
            self._asked.update(group)
            self._ask_group(group)
        else:
            self._gate(self._ask_group, group)

    def _ask_group(self, group: dict[K, list[Callable[[A], None]]]) -> None:
        if self._dead:
            return
        questions = [*group]
        for start in range(0, len(questions), QUESTIONS_PER_QUERY):
            asked = {question: group[question] for question in questions[start : start + QUESTIONS_PER_QUERY]}
            self._queries += 1
            self._began[self._queries] = self._durable()
            task = self._host.create_task(self._answer(self._queries, asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, query: int, asked: dict[K, list[Callable[[A], None]]]) -> None:
        try:
            answers = await self._ask([*asked])
        except Exception as error:
            if not self._dead:
                self._incarnation.fail(error)
            return
        if self._dead:
            return
        # Back on the host loop, but in a task: answers lead to advances, which must come from a plain callback.
        self._host.call_soon(self._tell, query, asked, answers)

    def _tell(self, query: int, asked: dict[K, list[Callable[[A], None]]], answers: Callable[[K], A]) -> None:
        for question, thens in asked.items():
            self._asked.pop(question, None)
            for then in thens:
                if self._dead:
                    return
                self.outstanding -= 1
                self._hand_over(then, question, answers)
        self._began.pop(query, None)
        self._tell_waiter()
        self._ready.schedule()

    def _hand_over(self, then: Callable[[A], None], question: K, answers: Callable[[K], A]) -> None:
        try:
            then(answers(question))
        except USER_ERRORS as error:  # A mistake of ours: the others would wait for ever for what it left undone.
            self._incarnation.fail(error)
            let_signals_pass(error)

    def _tell_waiter(self) -> None:
        waiter, self._answer_waiter = self._answer_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
