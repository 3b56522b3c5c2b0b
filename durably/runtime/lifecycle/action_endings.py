"""`ActionEndings`: what becomes of an invocation when one of its actions ends or backs off."""

from __future__ import annotations

from typing import Any

from durably.actors.values.error_envelopes import encode_failure
from durably.errors import CodecError, TerminalError, UnencodableError
from durably.ids import InvocationStatus
from durably.runtime.actions.actions import ActionKey, ActionResult, Actions
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun, throw_away
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.messaging.completions import Completions
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry


class ActionEndings:
    """Hears of the actions that one incarnation has started or joined."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        actions: Actions,
        committer: Committer,
        completions: Completions,
        observer: Observer,
        pauses: Pauses,
        payloads: PayloadCheck,
        ready: ReadyQueue,
        registry: InvocationRegistry,
    ) -> None:
        self._payloads = payloads
        self._incarnation = incarnation
        self._actions = actions
        self._settled = actions.settled
        self._committer = committer
        self._completions = completions
        self._observer = observer
        self._pauses = pauses
        self._ready = ready
        self._registry = registry

    def action_backs_off(self, key: ActionKey, name: str, fields: dict[str, Any], /) -> None:
        """An action has failed, and will be tried again."""
        invocation = self._registry.live.get(key[0])
        if invocation is not None:
            self._observer.action_retries(invocation, name, fields)

    def action_issued_at(self, key: ActionKey, /) -> int | None:
        """When its handler asked for an action; None: its invocation is not in memory any more."""
        id, number = key
        invocation = self._registry.live.get(id)
        return None if invocation is None or invocation.journal is None else invocation.journal.issued_at(number)

    def action_ended(self, key: ActionKey, result: ActionResult, /) -> None:
        """An action has its result, which is kept until its completion is durable (rule A1).

        A completion that is durable answers its command for ever, so the action never runs again (rule A2).
        """
        if self._incarnation.dead:  # The next incarnation joins it.
            return
        id, number = key
        invocation = self._registry.live.get(id)
        if invocation is None or invocation.journal is None or number not in invocation.journal.pending:
            self._settled(key)
            return
        result = self._storable(invocation, key, result)
        if result.exhausted is not None:
            self._settled(key)
            if (
                invocation.journal.hears_of_cancel
            ):  # Rule E1 (e): a new attempt takes that in, and may try the action again.
                throw_away(invocation)
                self._ready.push(invocation)
            elif invocation.status is not InvocationStatus.PAUSED:  # Otherwise it is tried again after the resume.
                self._pauses.pause(invocation, result.exhausted)
        else:
            self._completions.complete(
                self._committer.begin(), invocation, number, result.failed, result.value, result.cause
            )
            self._committer.batch.note_weight(id, len(result.value))
            self._committer.when_durable(self._settled, key)
        self._ready.schedule()

    def _storable(self, invocation: InvocationRun, key: ActionKey, result: ActionResult) -> ActionResult:
        """The result, or what its action comes to if it cannot be stored.

        One that is too large raises in the handler, as any that cannot be encoded (rule V5). One that the codec refuses
        waits for a person: the action has been done, and the codec may be mended.
        """
        if self._payloads.fits_surely(result.value):
            return result
        what = "failure" if result.failed else "result"
        try:
            self._payloads.value(f"The {what} of {self._name_of(invocation, key)} of {invocation.target}", result.value)
        except UnencodableError as error:
            return ActionResult(failed=True, value=encode_failure(TerminalError(error.message)), cause=error)
        except CodecError as error:
            return ActionResult(failed=True, value=b"", exhausted=error)
        return result

    def _name_of(self, invocation: InvocationRun, key: ActionKey) -> str:
        return "" if invocation.journal is None else str(invocation.journal.pending.get(key[1], "an action"))
