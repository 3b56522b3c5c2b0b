"""`EditDesk`: state that is edited from outside."""

from __future__ import annotations

from functools import partial
from typing import Any

from durably.errors import DurablyError, InvalidArgumentError, OverloadedError, UnencodableError
from durably.ids import Address
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.gateway.admission import OVERLOAD_RETRY_SECONDS
from durably.runtime.gateway.pending_requests import AcceptanceOperation
from durably.runtime.gateway.requests import Acceptance as Accepted
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.lifecycle.state_edits import StateEdit, StateEdits, check_edit, encode_edit
from durably.runtime.messaging.targets import Targets
from durably.runtime.settings import Settings


class EditDesk:
    """Of one incarnation. Like sends, edits are accepted in the order in which they came."""

    def __init__(
        self,
        *,
        committer: Committer,
        payloads: PayloadCheck,
        ready: ReadyQueue,
        settings: Settings,
        state_edits: StateEdits,
        targets: Targets,
    ) -> None:
        self._committer = committer
        self._payloads = payloads
        self._ready = ready
        self._settings = settings
        self._state_edits = state_edits
        self._targets = targets

    def send(self, operation: AcceptanceOperation[Any], address: Address, edit: StateEdit) -> None:
        """The operation ends when the edit is durable; it is carried out in its turn."""
        reason = self._committer.refusal()
        if reason is not None:
            operation.refuse(OverloadedError(reason, retry_after=OVERLOAD_RETRY_SECONDS))
        else:
            self._ready.arrive(partial(self._accept, operation, address, edit))

    def _accept(self, operation: AcceptanceOperation[Any], address: Address, edit: StateEdit) -> None:
        try:
            argument = self._checked(address, edit)
        except DurablyError as error:
            operation.refuse(error)
            return
        operation.id = self._state_edits.send(address, argument).id
        accepted = Accepted(id=operation.id, previously_accepted=False, due=None)
        self._committer.when_answerable(operation.accepted, accepted)

    def _checked(self, address: Address, edit: StateEdit) -> bytes:
        """
        Raises:
            DurablyError: it cannot be accepted.
        """
        self._targets.check_object(address.service, address.key)
        size = sum(len(name) + len(value) for name, value in edit.state.items())
        if size > min(self._settings.state_bytes, self._settings.payload_bytes):
            raise InvalidArgumentError(
                f"The new state of {'/'.join(address)} has {size} bytes, more than Limits(state_bytes=...) or "
                "Limits(payload_bytes=...) allow.",
            )
        check_edit(self._targets.actor(address.service), edit)
        argument = encode_edit(edit)
        what = f"The new state of {'/'.join(address)}"
        try:
            self._payloads.value(what, argument)
            for name, value in edit.state.items():
                self._payloads.value(f"The field {name!r} of {'/'.join(address)}", value)
        except UnencodableError as error:
            raise InvalidArgumentError(error.message) from error
        return argument
