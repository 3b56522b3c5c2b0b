"""Which invocation a request below `/restate/` asks about, and what it asks: `question_of` answers with a `Question`.

    GET  /restate/{attach|output}/{invocation id}
    POST /restate/{attach|output|lookup}                                  with a target as JSON
    GET  /restate/invocation/{invocation id}/{attach|output}
    GET  /restate/invocation/{service}[/{key}]/{handler}/{idempotency key}/{attach|output}
    GET  /restate/workflow/{name}/{id}/{attach|output}

An invocation is named by its id, by the idempotency key it was started with, or as a workflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from durably.ids import OLDER_PREFIX, KeyScope, run_scope
from durably.ingress.paths import segment_text
from durably.ingress.refusals import RefusedRequestError
from durably.ingress.targets import BAD_EXPLICIT_PATH

Verb: TypeAlias = Literal["attach", "output", "lookup"]
Which: TypeAlias = str | KeyScope

VERBS: Final[dict[bytes, Verb]] = {b"attach": "attach", b"output": "output", b"lookup": "lookup"}
WAITS_OR_LOOKS: Final[dict[bytes, Verb]] = {b"attach": "attach", b"output": "output"}
OLDER_FORMS: Final = frozenset({b"invocation", b"workflow"})
BAD_INVOCATION_PATH: Final = (
    "bad path, expected /restate/invocation/:invocation-id/output or "
    "/restate/invocation/:target/:idempotency-key/output, or the same with attach"
)
BAD_WORKFLOW_PATH: Final = "bad path, expected /restate/workflow/:name/:key/output or the same with attach"
FIRST_SEGMENTS: Final = OLDER_FORMS | VERBS.keys()
"""What the second segment of such a path is, after `restate`."""


class Question(NamedTuple):
    """What is asked. `which` is None where the body says it."""

    verb: Verb
    which: Which | None


class _Target(msgspec.Struct, rename="camel", tag_field="target"):
    """What a body says, in the words of Restate's clients."""


class _Invocation(_Target, tag="invocation"):
    invocation_id: str


class _Workflow(_Target, tag="workflow"):
    workflow_name: str
    workflow_key: str
    scope: str | None = None


class _Keyed(_Target, tag="idempotentInvocation"):
    service: str
    handler: str
    idempotency_key: str
    key: str | None = None
    scope: str | None = None


_decode_target = msgspec.json.Decoder(_Invocation | _Workflow | _Keyed).decode


def question_of(method: str, segments: Sequence[bytes]) -> Question:
    """What a path asks, given as its encoded segments after `restate`.

    Raises:
        RefusedRequestError: 400, 404 or 405.
    """
    first, rest = segments[0], segments[1:]
    if first in VERBS and not rest:
        _expect(method, "POST")
        return Question(VERBS[first], None)
    if first in WAITS_OR_LOOKS and len(rest) == 1:
        _expect(method, "GET")
        return Question(WAITS_OR_LOOKS[first], _invocation_id(segment_text(rest[0])))
    if first not in OLDER_FORMS:
        raise RefusedRequestError(400, BAD_EXPLICIT_PATH)
    if len(rest) < (3 if first == b"workflow" else 2):
        raise RefusedRequestError(400, BAD_WORKFLOW_PATH if first == b"workflow" else BAD_INVOCATION_PATH)
    if rest[-1] not in WAITS_OR_LOOKS:
        raise RefusedRequestError(404, "not found")
    names = [segment_text(segment) for segment in rest[:-1]]
    which = _workflow(names) if first == b"workflow" else _invocation(names)
    _expect(method, "GET")
    return Question(WAITS_OR_LOOKS[rest[-1]], which)


def target_in(body: bytes) -> Which:
    """The invocation that a body names.

    Raises:
        RefusedRequestError: 400, or 404 for one with a scope: nothing is in one, as the paths with a scope say.
    """
    try:
        target = _decode_target(body)
    except msgspec.DecodeError as error:
        raise RefusedRequestError(
            400,
            f"bad target in the body: {error}. Send one of "
            '{"target":"invocation","invocationId":...}, {"target":"workflow","workflowName":...,"workflowKey":...} '
            'and {"target":"idempotentInvocation","service":...,"key":...,"handler":...,"idempotencyKey":...}',
        ) from None
    if isinstance(target, _Invocation):
        return _invocation_id(target.invocation_id)
    if target.scope is not None:
        raise RefusedRequestError(404, f"invocation not found: there are no scopes here, so none {target.scope!r}")
    if isinstance(target, _Workflow):
        return run_scope(target.workflow_name, target.workflow_key)
    return _scope(target.service, target.key or "", target.handler, target.idempotency_key)


def _invocation(names: list[str]) -> Which:
    match names:
        case [id]:
            return _invocation_id(id)
        case [service, handler, idempotency_key]:
            return _scope(service, "", handler, idempotency_key)
        case [service, key, handler, idempotency_key]:
            return _scope(service, key, handler, idempotency_key)
        case _:
            raise RefusedRequestError(404, "not found")


def _workflow(names: list[str]) -> Which:
    if len(names) != 2:
        raise RefusedRequestError(404, "not found")
    return run_scope(*names)


def _scope(service: str, key: str, handler: str, idempotency_key: str) -> KeyScope:
    if not idempotency_key:
        raise RefusedRequestError(400, "bad target, the idempotency key is empty")
    return KeyScope(service, key, handler, idempotency_key)


def _invocation_id(text: str) -> str:
    if not text.startswith(OLDER_PREFIX):
        raise RefusedRequestError(400, f"bad invocation id '{text}', one begins with '{OLDER_PREFIX}'")
    return text


def _expect(method: str, wanted: str) -> None:
    if method != wanted:
        raise RefusedRequestError(405, f"method not allowed, use {wanted}", [(b"allow", wanted.encode())])
