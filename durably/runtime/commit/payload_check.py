"""`PayloadCheck`: what cannot be stored is found out before anything follows from it (rule L5).

A value may be larger than the store takes, or a codec may refuse it. If the commit found that out, it would fail with
everything else in its batch, and the next one would hold the value again. So the store is asked before a request is
accepted, a step is appended or an answer is recorded: then it is the failure of one invocation.

Where the size alone decides, nearly all values are so much smaller that adding up their lengths is the whole check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from durably.actors.protocol.commands import Call, Command, CompletePromise, Publish, Run, Send
from durably.actors.protocol.entries import in_words
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import CodecError, TerminalError, UnencodableError
from durably.runtime.commit.open_batch import KEPT_BYTES
from durably.runtime.execution.failure_text import AttemptFailureRecord, encode_attempt_failure, text_of_error
from durably.runtime.execution.step import Answer, Delivery, Outcome, Step, encode_step
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.outcomes import encode_outcome
from durably.storage.store import Store, ValueTooLargeError, names_limit_of

GROWTH: Final = 8
"""How much larger a record is than what it holds, at most: bytes as base64, a control character as `\\u0001`."""
OVERHEAD_BYTES: Final = 2048
"""What a codec that `encodes_everything` adds to each value besides, at most."""
ENVELOPE_BYTES: Final = 1024
"""An event is delivered, and given up, in an envelope with its names: that is larger by this and by the names."""
ESCAPED: Final = 6
"""So many bytes a character of a name takes in JSON, at most."""
UTF8: Final = 4
"""So many bytes a character of a name takes in an index, at most."""
NAMES: Final = 32
"""The names of one record may have this part of what a value may: they are stored as JSON in JSON."""


class Addressed(Protocol):
    """What requests from outside and messages of handlers have in common."""

    @property
    def service(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def handler(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def idempotency_key(self) -> str | None: ...


class Receiver(NamedTuple):
    """Where a message goes that neither a request nor a command has brought."""

    service: str
    key: str | None
    handler: str
    headers: Mapping[str, str]
    idempotency_key: str | None = None


class PayloadCheck:
    """Asks one store."""

    def __init__(self, store: Store) -> None:
        self._ask = store.check
        self._names_limit_bytes = store.value_limit_bytes // NAMES
        largest = max(-1, (store.value_limit_bytes - OVERHEAD_BYTES) // GROWTH)
        self._largest = largest
        """What is not larger than this takes room that does not matter, whatever a codec makes of it."""
        self.certain_bytes = -1 if store.checks_every_value else largest
        """What is not larger than this fits."""
        self._indexed_limit_bytes = names_limit_of(store)
        self._short_names = self._names_limit_bytes // GROWTH
        """So many characters of names fit, also into an index."""
        self.certain_names_bytes = self.certain_bytes
        """A step that is not larger than this has no name that an index does not take."""
        if self._indexed_limit_bytes is not None:
            self._short_names = min(self._short_names, self._indexed_limit_bytes // UTF8 // 2)
            self.certain_names_bytes = min(self.certain_bytes, self._indexed_limit_bytes // UTF8 // 2)

    def fits_surely(self, value: bytes) -> bool:
        """It is so small that the store need not be asked, and no sentence about it is needed."""
        return len(value) <= self.certain_bytes

    def value(self, what: str, value: bytes) -> None:
        """
        Raises:
            UnencodableError: it is too large.
            CodecError: the codec refuses it.
        """
        if self.fits_surely(value):
            return
        try:
            self._ask(value)
        except ValueTooLargeError as error:
            raise UnencodableError(
                f"{what} cannot be stored: {error}. Keep large things elsewhere, and store where they are."
            ) from None
        except CodecError as error:
            raise CodecError(f"{what} cannot be stored. {error}", nothing_accepted=True) from error.__cause__

    def fit_surely(self, names: int, argument: bytes) -> bool:
        """A message with so many characters of names is so small that nothing of it need be looked at."""
        return names + len(argument) <= self.certain_bytes and names <= self._short_names

    def message(self, message: Addressed, argument: bytes, where: str = "") -> None:
        """What is about to be accepted.

        Raises:
            UnencodableError, CodecError: as `value`.
        """
        key, headers, idempotency_key = message.key, message.headers, message.idempotency_key
        names = (0 if key is None else len(key)) + (0 if idempotency_key is None else len(idempotency_key))
        if headers:
            names += sum(map(len, headers)) + sum(map(len, headers.values()))
        if self.fit_surely(names, argument):
            return
        target = f"{message.service}/{message.handler}{where}"
        self._indexed(f"The key for {target}", message.service, message.handler, key, idempotency_key)
        self._names(f"The key and the headers for {target}", names)
        self.value(f"The argument of {target}", argument)
        for name, value in message.headers.items():
            self.value(f"The header {name!r} for {target}", value.encode())

    def events(self, published: bytes) -> None:
        """What is about to be published from outside, so that each event of it fits in its envelope.

        Raises:
            UnencodableError, CodecError: as `value`.
        """
        if not self.fits_surely(published):
            has_room = len(published) <= self._largest  # Then the store is asked for its codec's sake alone.
            room = b"" if has_room else b" " * (ENVELOPE_BYTES + ESCAPED * self._names_limit_bytes)
            self.value("What is published together, with the room that envelopes need,", published + room)

    def size_of_step(self, step: Step) -> int:
        """How many bytes an advance has given, in all; up to `certain_bytes` the store need not be asked."""
        outcome, changes = step.outcome, step.changes
        size = 0 if outcome is None else len(outcome.value)
        if changes is not None:
            for value in changes.values():
                if value is not None:
                    size += len(value)
            if self._indexed_limit_bytes is not None:
                size += sum(map(len, changes))
        if step.reads is not None:
            size += sum([len(value) for value in step.reads.values() if value is not None])
        for command in step.commands:
            if type(command) is Run:
                size += len(command.name)
            elif type(command) is Call or type(command) is Send:
                size += _size_of_message(command)
            else:
                size += _size_of(command)
        if step.continues_with is not None:
            size += len(step.continues_with)
        return size

    def names_of_step(self, invocation: InvocationRun, step: Step, where: Callable[[int], str]) -> None:
        """Names that an advance has given and that indexes hold, before it is appended; the others are in `step`.

        Raises:
            UnencodableError: they are too long; says which.
        """
        if self._indexed_limit_bytes is None:
            return
        service, key = invocation.address
        for name in step.changes or ():
            self._indexed(f"The field or entry {in_words(name)[:80]!r} of {invocation.target}", service, key, name)
        first = 0 if invocation.journal is None else invocation.journal.next_command
        for number, command in enumerate(step.commands, first):
            match command:
                case Call() | Send():
                    self.message(command, b"", f", sent at {where(number)},")
                case Publish():
                    what = f"The key of the event that was published at {where(number)}"
                    self._indexed(what, command.stream, command.key, command.id)
                case CompletePromise():
                    self._indexed(f"The name of the promise completed at {where(number)}", service, key, command.name)
                case _:
                    pass

    def step(
        self, invocation: InvocationRun, step: Step, deliveries: Sequence[Delivery], where: Callable[[int], str]
    ) -> None:
        """What an advance has given, before it is appended. `where` tells the source line of a command.

        Raises:
            UnencodableError, CodecError: as `value`; names what cannot be stored.
        """
        target, outcome = invocation.target, step.outcome
        for name, value in (step.changes or {}).items():
            self._names(f"The name of a field of {target}", len(name))
            if value is not None:
                self.value(f"The field {in_words(name)!r}, set by {target},", value)
        first = 0 if invocation.journal is None else invocation.journal.next_command
        for number, command in enumerate(step.commands, first):
            self._command(command, f", sent at {where(number)},")
        if outcome is not None:
            what = "failure" if outcome.failed else "result"
            self.value(f"The {what} of {target}", encode_outcome(outcome))
            self.value(f"The {what} of {target}", outcome.value)
        if step.continues_with is not None:
            self.value(f"The argument with which {target} continues", step.continues_with)
        if not step.is_last:
            answers = [Answer(one.command, one.failed, one.value) for one in deliveries if one.command >= 0]
            kept = [answer for answer in answers if len(answer.value) <= KEPT_BYTES]
            self.value(
                f"What {target} asked for, changed and read before it waited again, taken together,",
                encode_step(step, kept),
            )

    def outcome(self, outcome: Outcome) -> Outcome:
        """The failure that an invocation is to end with, or another one that can be stored."""
        if self.fits(encode_outcome(outcome)):
            return outcome
        return Outcome(True, encode_failure(TerminalError("It failed, and what its error says cannot be stored.")))

    def failure(self, error: BaseException, since: int | None = None) -> bytes:
        """The record of a failed attempt, or as much of it as can be stored."""
        record = encode_attempt_failure(error, since)
        if self.fits(record):
            return record
        kind, text = type(error).__qualname__, text_of_error(error)
        record = msgspec.json.encode(AttemptFailureRecord(kind, text, "", since))
        if self.fits(record):
            return record
        return msgspec.json.encode(AttemptFailureRecord(kind, "what it says cannot be stored", "", since))

    # ------------------------------------------------------------------ inside

    def _command(self, command: Command, where: str) -> None:
        if isinstance(command, Call | Send):
            self.message(command, command.argument, where)
            return
        value: bytes = getattr(command, "value", b"")
        self._names(f"The name that was given{where}", _size_of(command) - len(value))
        if isinstance(command, Publish) and not self.fits_surely(value):
            value += b" " * (ENVELOPE_BYTES + ESCAPED * (_size_of(command) - len(value)))
        self.value(f"The value{where}", value)

    def _names(self, what: str, size: int) -> None:
        if size > self._names_limit_bytes:
            raise UnencodableError(
                f"{what} cannot be stored: {size} characters, and the store takes at most {self._names_limit_bytes}."
            )

    def _indexed(self, what: str, *names: str | None) -> None:
        limit = self._indexed_limit_bytes
        if limit is None:
            return
        size = sum(len(name.encode()) for name in names if name is not None)
        if size > limit:
            raise UnencodableError(
                f"{what} cannot be stored: with the names beside it, it takes {size} bytes, and the indexes of this "
                f"store take at most {limit}. Make a shorter one of it, as by a hash."
            )

    def fits(self, value: bytes) -> bool:
        try:
            self.value("", value)
        except (UnencodableError, CodecError):
            return False
        return True


def _size_of_headers(headers: Mapping[str, str]) -> int:
    return sum(map(len, headers)) + sum(map(len, headers.values()))


def _size_of_message(message: Call | Send) -> int:
    """The same as `_size_of`, for the commands that are frequent."""
    key, headers, idempotency_key = message.key, message.headers, message.idempotency_key
    size = len(message.service) + len(message.handler) + len(message.argument)
    if key is not None:
        size += len(key)
    if idempotency_key is not None:
        size += len(idempotency_key)
    return size + _size_of_headers(headers) if headers else size


def _size_of(command: Command) -> int:
    """What the values and names of a command hold."""
    size = 0
    for name in command.__struct_fields__:
        part = getattr(command, name)
        if isinstance(part, bytes | str):
            size += len(part)
        elif name == "headers":
            size += _size_of_headers(part)
    return size
