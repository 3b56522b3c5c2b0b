"""`Control`: what a person may do to an invocation."""

from __future__ import annotations

from collections.abc import Sequence

from durably.errors import UnknownTargetError
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.gateway.pending_requests import QuestionOperation
from durably.runtime.gateway.queries import Queries
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import InvocationRecord


class Control:
    """Orders from outside, for one incarnation; done when they are durable."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        pauses: Pauses,
        queries: Queries,
        ready: ReadyQueue,
        registry: InvocationRegistry,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._pauses = pauses
        self._queries = queries
        self._ready = ready
        self._registry = registry

    def resume(self, operation: QuestionOperation[Sequence[str]], id: str) -> None:
        """Let a paused invocation try again."""

        def found(one: InvocationRun | InvocationRecord) -> None:
            if isinstance(one, InvocationRun):
                self._resume(operation, one)
            elif self._activations.hosts(one.address):
                self._activations.with_loaded(
                    one.address, lambda _: self._resume(operation, self._registry.live.get(one.id))
                )
            else:
                operation.refuse(
                    UnknownTargetError(f"This runtime does not have {one.address.service}, so {id} cannot go on here.")
                )

        self._queries.with_invocation(operation, id, found)

    def _resume(self, operation: QuestionOperation[Sequence[str]], invocation: InvocationRun | None) -> None:
        resumed = [invocation.id] if invocation is not None and self._pauses.resume(invocation) else []
        self._committer.when_answerable(operation.finish, resumed)
        self._ready.schedule()
