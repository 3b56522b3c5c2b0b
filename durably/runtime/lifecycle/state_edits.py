"""`StateEdits`: the state of an object is replaced from outside (rule W8).

An edit is a message in the mailbox of its object, as a deletion is: it waits for what came before, and a crash leaves
either the message or its effect. It may name the version of the state that it was made for; where the object has
another one by then, it fails with 409 and changes nothing. Fields that are kept apart from the object stay.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256

import msgspec

from durably.actors.definition.binding import BoundActor
from durably.errors import InvalidArgumentError, InvocationStatusError, TerminalError
from durably.ids import Address, Entropy, is_storable, new_identity
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.targets import Targets

INTERNAL_PREFIX = "durably:"
"""No field of a user begins like this."""


class StateEdit(msgspec.Struct, frozen=True, array_like=True):
    """What the state is to be: all of its fields, encoded."""

    state: dict[str, bytes]
    version: str | None = None
    """The version of the state that it replaces; None: any version."""

    def refusal(self, id: str, activation: Activation) -> TerminalError | None:
        """Why it cannot be carried out, where the object stands now."""
        if activation.load_error is not None:
            return InvocationStatusError(
                f"The state cannot be edited: {activation.load_error} Delete the object, or mend what it names."
            )
        if self.version is not None and self.version != state_version(own_fields(activation)):
            return InvocationStatusError(
                f"The edit '{id}' was made for another state of {'/'.join(activation.address)} than it has by now. "
                "Read the state, and edit it once more."
            )
        return None

    def changes(self, activation: Activation) -> dict[str, bytes | None]:
        """What is different from the state that is there."""
        gone: dict[str, bytes | None] = dict.fromkeys(own_fields(activation).keys() - self.state.keys())
        return {**gone, **self.state}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(StateEdit)


def encode_edit(edit: StateEdit) -> bytes:
    return _encoder.encode(edit)


def decode_edit(argument: bytes) -> StateEdit:
    return _decoder.decode(argument)


def own_fields(activation: Activation) -> Mapping[str, bytes]:
    """The fields that an edit is about."""
    apart = activation.actor.large_fields()
    return {name: value for name, value in activation.snapshot.items() if _is_editable(name, apart)}


def state_version(state: Mapping[str, bytes]) -> str:
    """What tells a state from another one, as Restate's tools reckon it."""
    digest = sha256()
    for place, name in enumerate(sorted(state)):
        digest.update(place.to_bytes(8, "big") + b"\x01" + name.encode() + b"\x02" + state[name] + b"\x03")
    return urlsafe_b64encode(digest.digest()).decode().rstrip("=")


def check_edit(actor: BoundActor, edit: StateEdit) -> None:
    """Outside input is decoded at admission (rule V5).

    Raises:
        InvalidArgumentError: a field cannot be what is to be stored there; names it.
    """
    apart = actor.large_fields()
    for name, value in edit.state.items():
        if not name or not is_storable(name) or not _is_editable(name, apart):
            raise InvalidArgumentError(f"The field {name!r} of {actor.definition.name} cannot be edited.")
        try:
            actor.decode_state(name, value)
        except Exception as error:  # A Serde or a validator of the user's may raise anything.
            raise InvalidArgumentError(
                f"The field {name!r} of {actor.definition.name} cannot hold {value[:100]!r}: {error}"
            ) from error


def _is_editable(name: str, apart: Mapping[str, object]) -> bool:
    return not name.startswith(INTERNAL_PREFIX) and name not in apart


class StateEdits:
    """Sends edits, in one incarnation."""

    def __init__(self, *, acceptance: Acceptance, committer: Committer, entropy: Entropy, targets: Targets) -> None:
        self._acceptance = acceptance
        self._committer = committer
        self._entropy = entropy
        self._targets = targets

    def send(self, address: Address, argument: bytes) -> InvocationRun:
        """The edit joins the mailbox of its object."""
        handler = self._targets.state_edit_of(address.service)
        id, seed = new_identity(self._entropy, address.service, address.key)
        keep_us = self._targets.retention_us(handler)
        message = Message(handler, address.key, argument, id, seed, {}, None, keep_outcome_us=keep_us)
        return self._acceptance.accept(self._committer.begin(), message)
