"""`ExportedJournal`: all that is needed to replay one invocation elsewhere, and the files that hold it.

One JSON document per invocation, made to be read and compared: arguments, answers and state stand in it as the JSON
that they are, other bytes as `{"$base64": "…"}`. Every payload comes back as exactly the bytes that went in. A file
says which format it has, and an unknown one is refused.
"""

from __future__ import annotations

import platform
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec

from durably.actors.migrations import FIRST_STATE_VERSION
from durably.actors.protocol.commands import Command
from durably.errors import DurablyError
from durably.ids import Address, InvocationStatus, KeyScope
from durably.runtime.execution.step import Delivery, Outcome, Step
from durably.runtime.invocations.journal import Versions

FORMAT = 1
FILE_SUFFIX = ".json"

_BASE64 = "$base64"
_ABSENT = "$absent"


class JournalFileError(DurablyError, ValueError):
    """A file does not hold an exported journal that this version can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedJournal:
    """An invocation as a store held it, mostly an unfinished one: what it began with, its steps, and the answers that
    came for it.

    Times are microseconds since 1970 UTC. One that waits for its turn has no steps yet.
    """

    id: str
    service: str
    key: str
    """The object's key; the invocation's own id for a service."""
    handler: str
    status: InvocationStatus
    accepted_at: int
    deadline: int | None
    idempotency_key: str | None
    headers: dict[str, str]
    argument: bytes
    seed: bytes
    snapshot: Mapping[str, bytes]
    """The object's state as the execution first saw it (rule V4); empty for shared handlers, whose steps record what
    they read, and for services."""
    steps: tuple[Step, ...]
    deliveries: tuple[Delivery, ...]
    """Every recorded answer, in log order, also those that no step has taken in yet."""
    durably: str
    """The version of durably that exported it."""
    python: str
    """The minor version of Python that exported it, such as `3.12` (rule S5)."""
    versions: Versions = ()
    """Which code made its steps."""
    state_version: int = FIRST_STATE_VERSION
    """Of the state on which it began."""
    path: Path | None = None
    """The file that it was read from."""

    @property
    def target(self) -> str:
        """`Service/handler` or `Object/key/handler`."""
        middle = "" if self.is_of_service else f"/{self.key}"
        return f"{self.service}{middle}/{self.handler}"

    @property
    def is_from_outside(self) -> bool:
        """Not known of an exported one."""
        return False

    @property
    def address(self) -> Address:
        """Where it runs."""
        return Address(self.service, self.key)

    @property
    def scope(self) -> KeyScope | None:
        """What its idempotency key is unique in."""
        if self.idempotency_key is None:
            return None
        return KeyScope(self.service, "" if self.is_of_service else self.key, self.handler, self.idempotency_key)

    @property
    def is_of_service(self) -> bool:
        """It has no object: a service keeps each invocation under its own id."""
        return self.key == self.id


def this_python() -> str:
    """The minor version of the running Python."""
    major, minor, _ = platform.python_version_tuple()
    return f"{major}.{minor}"


# ---------------------------------------------------------------- files


def write_journal(journal: ExportedJournal, folder: Path) -> Path:
    """Write a journal into a folder, in place of an earlier export of the same invocation; the file's path.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / f"{journal.service}.{journal.handler}.{journal.id}{FILE_SUFFIX}"
    path.write_bytes(encode_journal(journal))
    return path


def read_journals(path: str | Path) -> list[ExportedJournal]:
    """The journal in a file, or those of all `.json` files in a folder, by name.

    Raises:
        JournalFileError: there is no such file or folder, or a file holds something else.
    """
    path = Path(path)
    files = sorted(path.glob(f"*{FILE_SUFFIX}")) if path.is_dir() else [path]
    return [_read(file) for file in files]


def _read(path: Path) -> ExportedJournal:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JournalFileError(
            f"{path} cannot be read: {error.strerror}. Name what `durably export-journals` has written."
        ) from error
    return decode_journal(content, path)


# ---------------------------------------------------------------- the format


class _Version(msgspec.Struct):
    format: int


class _StepDocument(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A step; the last one of an invocation that has ended says how it did."""

    at: int
    attempt: int = 1
    deliveries: tuple[int, ...] = ()
    commands: tuple[dict[str, msgspec.Raw], ...] = ()
    changes: dict[str, msgspec.Raw] | None = None
    abandoned: tuple[int, ...] = ()
    reads: dict[str, msgspec.Raw] | None = None
    cancelled: tuple[int, ...] = ()
    patches: tuple[str, ...] = ()
    ends: dict[str, msgspec.Raw] = {}
    """With a `result`, a `failure`, or the argument of the execution that it `continues_with`."""


class _AnswerDocument(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    command: int
    value: msgspec.Raw
    failed: bool = False


class _JournalDocument(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format: int
    durably: str
    python: str
    id: str
    service: str
    key: str
    handler: str
    status: InvocationStatus
    accepted_at: int
    deadline: int | None
    idempotency_key: str | None
    headers: dict[str, str]
    seed: str
    argument: msgspec.Raw
    snapshot: dict[str, msgspec.Raw]
    steps: list[_StepDocument]
    answers: list[_AnswerDocument]
    versions: Versions = ()
    state_version: int = FIRST_STATE_VERSION


_COMMANDS: dict[str, type[Command]] = {str(cls.__struct_config__.tag): cls for cls in get_args(Command)}
_KIND = "command"
_INDENT_SPACES = 2


def encode_journal(journal: ExportedJournal) -> bytes:
    """The content of a journal's file."""
    document = _JournalDocument(
        format=FORMAT,
        durably=journal.durably,
        python=journal.python,
        id=journal.id,
        service=journal.service,
        key=journal.key,
        handler=journal.handler,
        status=journal.status,
        accepted_at=journal.accepted_at,
        deadline=journal.deadline,
        idempotency_key=journal.idempotency_key,
        headers=dict(journal.headers),
        seed=journal.seed.hex(),
        argument=_shown(journal.argument),
        snapshot={name: _shown(value) for name, value in journal.snapshot.items()},
        steps=[_step_document(step) for step in journal.steps],
        answers=[_AnswerDocument(answer.command, _shown(answer.value), answer.failed) for answer in journal.deliveries],
        versions=journal.versions,
        state_version=journal.state_version,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=_INDENT_SPACES) + b"\n"


def decode_journal(content: bytes, path: Path | None = None) -> ExportedJournal:
    """The journal that a file holds.

    Raises:
        JournalFileError: it holds something else, or was written by a newer version.
    """
    where = "The journal" if path is None else str(path)
    try:
        version = msgspec.json.decode(content, type=_Version).format
        if version != FORMAT:
            raise JournalFileError(
                f"{where} has format {version}, and this version of durably reads format {FORMAT}. "
                "Export the journals again with this version, or replay them with the one that wrote them."
            )
        document = msgspec.json.decode(content, type=_JournalDocument)
        return ExportedJournal(
            id=document.id,
            service=document.service,
            key=document.key,
            handler=document.handler,
            status=document.status,
            accepted_at=document.accepted_at,
            deadline=document.deadline,
            idempotency_key=document.idempotency_key,
            headers=document.headers,
            argument=_payload(document.argument),
            seed=bytes.fromhex(document.seed),
            snapshot={name: _payload(value) for name, value in document.snapshot.items()},
            steps=tuple(_step(step) for step in document.steps),
            deliveries=tuple(
                Delivery(answer.command, answer.failed, _payload(answer.value)) for answer in document.answers
            ),
            durably=document.durably,
            python=document.python,
            versions=document.versions,
            state_version=document.state_version,
            path=path,
        )
    except JournalFileError:
        raise
    except ValueError as error:  # Of msgspec, of hexadecimal digits and of base64 alike.
        raise JournalFileError(
            f"{where} does not hold a journal: {error}. Name what `durably export-journals` has written."
        ) from error


def _step_document(step: Step) -> _StepDocument:
    return _StepDocument(
        at=step.at,
        attempt=step.attempt,
        deliveries=step.deliveries,
        commands=tuple(_command_document(command) for command in step.commands),
        changes=_fields_shown(step.changes),
        abandoned=step.abandoned,
        reads=_fields_shown(step.reads),
        cancelled=step.cancelled,
        patches=step.patches or (),
        ends=_ends(step),
    )


def _step(document: _StepDocument) -> Step:
    return Step(
        at=document.at,
        deliveries=document.deliveries,
        commands=tuple(_command(command) for command in document.commands),
        changes=_fields(document.changes),
        abandoned=document.abandoned,
        reads=_fields(document.reads),
        attempt=document.attempt,
        cancelled=document.cancelled,
        patches=document.patches or None,
        outcome=_outcome(document.ends),
        continues_with=_payload(document.ends["continues_with"]) if "continues_with" in document.ends else None,
    )


def _ends(step: Step) -> dict[str, msgspec.Raw]:
    if step.outcome is not None:
        return {"failure" if step.outcome.failed else "result": _shown(step.outcome.value)}
    return {} if step.continues_with is None else {"continues_with": _shown(step.continues_with)}


def _outcome(ends: Mapping[str, msgspec.Raw]) -> Outcome | None:
    for name in ("result", "failure"):
        if name in ends:
            return Outcome(name == "failure", _payload(ends[name]))
    return None


def _command_document(command: Command) -> dict[str, msgspec.Raw]:
    """Its kind, and the fields that are not as they mostly are."""
    shown = {_KIND: _raw(command.__struct_config__.tag)}
    for field in msgspec.structs.fields(command):
        value = getattr(command, field.name)
        if field.type is bytes:
            shown[field.name] = _shown(value)
        elif value is not None and value != field.default:
            shown[field.name] = _raw(value)
    return shown


def _command(document: Mapping[str, msgspec.Raw]) -> Command:
    kind = msgspec.json.decode(document.get(_KIND, msgspec.Raw(b'""')), type=str)
    if kind not in _COMMANDS:
        raise ValueError(f"it has an unknown command, {kind!r}")
    cls = _COMMANDS[kind]
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        written = document.get(field.name)
        if written is None:
            values[field.name] = None if field.default is msgspec.NODEFAULT else field.default
        elif field.type is bytes:
            values[field.name] = _payload(written)
        else:
            values[field.name] = msgspec.json.decode(written)
    return msgspec.convert([kind, *values.values()], cls, builtin_types=(bytes,))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


# ---------------------------------------------------------------- payloads


def _fields_shown(fields: Mapping[str, bytes | None] | None) -> dict[str, msgspec.Raw] | None:
    if fields is None:
        return None
    return {name: _raw({_ABSENT: True}) if value is None else _shown(value) for name, value in fields.items()}


def _fields(shown: Mapping[str, msgspec.Raw] | None) -> dict[str, bytes | None] | None:
    if shown is None:
        return None
    return {name: None if _sole_item(value, _ABSENT) is not None else _payload(value) for name, value in shown.items()}


def _shown(payload: bytes) -> msgspec.Raw:
    """A payload as it stands in a file: itself if reading gives the same bytes back, base64 otherwise."""
    if _is_plain_json(payload):
        return msgspec.Raw(payload)
    return _raw({_BASE64: b2a_base64(payload, newline=False).decode("ascii")})


def _payload(shown: msgspec.Raw) -> bytes:
    encoded = _sole_item(shown, _BASE64)
    if encoded is None:
        return _compact(bytes(shown))
    try:
        return a2b_base64(encoded, strict_mode=True)
    except (Base64Error, TypeError) as error:
        raise ValueError(f"it has damaged base64: {error}") from error


def _is_plain_json(payload: bytes) -> bool:
    """A file is indented anew, which changes white space and nothing else."""
    try:
        value = msgspec.json.decode(payload)
        is_ours = isinstance(value, dict) and (_BASE64 in value or _ABSENT in value)
        return not is_ours and _compact(payload) == payload
    except (ValueError, RecursionError):
        return False


def _compact(payload: bytes) -> bytes:
    return msgspec.json.format(payload, indent=-1)


def _sole_item(shown: msgspec.Raw, name: str) -> Any:
    """What stands under the only name of an object, if that is this one."""
    if not bytes(shown).startswith(b"{"):
        return None
    value: dict[str, Any] = msgspec.json.decode(shown, type=dict[str, Any])
    return value[name] if list(value) == [name] else None
