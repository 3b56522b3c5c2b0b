"""What a client sends: paths, headers and bodies, as an ingress of durably's or of Restate's reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from durably.actors.headers import REPEATED
from durably.actors.transport import Delay, Outgoing
from durably.http_headers import IDEMPOTENCY_KEY, TIMEOUT
from durably.ids import RUN

OCTETS: Final = b"application/octet-stream"
TEXT: Final = b"text/plain; charset=utf-8"
DOTS: Final = (".", "..")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-zA-Z-]+")
_HEADER_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request, which may be sent several times."""

    method: str
    path: str
    what: str
    """For sentences: `CartObject/add`."""
    headers: Mapping[str, bytes] = {}
    body: bytes = b""
    is_repeatable: bool = False
    """A second one has no further effect."""
    is_for_operators: bool = False
    """It goes to the admin API."""


def call_of(outgoing: Outgoing[Any]) -> Asked:
    return _message("call", outgoing, "")


def send_of(outgoing: Outgoing[Any], delay: Delay | None, now_us: int) -> Asked:
    """`now_us`: the time here, microseconds since 1970 UTC, for a message that is due at a moment."""
    query = ""
    if delay is not None:
        delay_us = delay.after_us if delay.after_us is not None else max(0, (delay.at_us or 0) - now_us)
        query = f"?delay={delay_us}us"
    return _message("send", outgoing, query)


def _message(verb: str, outgoing: Outgoing[Any], query: str) -> Asked:
    writer = outgoing.written_by
    is_typed = writer is not None and not outgoing.wire
    body = writer.body(outgoing.argument) if writer is not None and is_typed else outgoing.argument
    content_type = writer.content_type if writer is not None and is_typed else outgoing.content_type
    headers = {name: _header(name, value.replace(REPEATED, ", ")) for name, value in outgoing.headers.items()}
    if body and content_type is not None:
        headers.setdefault("content-type", content_type.encode())
    if outgoing.idempotency_key is not None:
        headers[IDEMPOTENCY_KEY] = _header(IDEMPOTENCY_KEY, outgoing.idempotency_key, "utf-8")
    if outgoing.timeout_us is not None:
        headers[TIMEOUT] = b"%dus" % outgoing.timeout_us
    segments = [outgoing.service, *([] if outgoing.key is None else [outgoing.key]), outgoing.handler]
    # A workflow runs once, so a second send joins the first. A second call is refused, and would hide the answer.
    starts_once = verb == "send" and outgoing.may_join
    return Asked(
        method="POST", path=f"/restate/{verb}/{path_of(*segments)}{query}", what=str(outgoing), headers=headers,
        body=body, is_repeatable=starts_once or outgoing.idempotency_key is not None,
    )  # fmt: skip


def question_of(verb: str, outgoing: Outgoing[Any]) -> Asked:
    """`attach` or `output`, of a workflow or of an invocation by its idempotency key."""
    target: dict[str, str]
    if outgoing.idempotency_key is not None:
        target = {
            "target": "idempotentInvocation", "service": outgoing.service, "handler": outgoing.handler,
            "idempotencyKey": outgoing.idempotency_key,
        }  # fmt: skip
        if outgoing.key is not None:
            target["key"] = outgoing.key
    else:
        assert outgoing.handler == RUN
        target = {"target": "workflow", "workflowName": outgoing.service, "workflowKey": outgoing.key or ""}
    return Asked(
        method="POST", path=f"/restate/{verb}", what=f"{verb} of {outgoing}", body=msgspec.json.encode(target),
        headers={"content-type": b"application/json"}, is_repeatable=True,
    )  # fmt: skip


def question_by_id(verb: str, id: str) -> Asked:
    return Asked(method="GET", path=f"/restate/{verb}/{path_of(id)}", what=f"{verb} of {id}", is_repeatable=True)


def completion_of(id: str, value: bytes) -> Asked:
    """A value for an awakeable, in the bytes that it is stored in. The first one counts (rule E5)."""
    return Asked(
        method="POST", path=f"/restate/awakeables/{path_of(id)}/resolve", what=f"the awakeable {id}", body=value,
        headers={"content-type": OCTETS}, is_repeatable=True,
    )  # fmt: skip


def rejection_of(id: str, reason: str, code: int) -> Asked:
    return Asked(
        method="POST", path=f"/restate/awakeables/{path_of(id)}/reject?code={code}", what=f"the awakeable {id}",
        body=reason.encode(), headers={"content-type": TEXT}, is_repeatable=True,
    )  # fmt: skip


def signal_of(id: str, name: str, value: bytes) -> Asked:
    """A signal counts each time that it comes, so it is not repeated."""
    return Asked(
        method="POST", path=f"/restate/invocations/{path_of(id)}/signals/{path_of(name)}",
        what=f"the signal {name!r} to {id}", body=value, headers={"content-type": OCTETS},
    )  # fmt: skip


def signal_rejection_of(id: str, name: str, reason: str, code: int) -> Asked:
    return Asked(
        method="POST", path=f"/restate/invocations/{path_of(id)}/signals/{path_of(name)}/reject?code={code}",
        what=f"the signal {name!r} to {id}", body=reason.encode(), headers={"content-type": TEXT},
    )  # fmt: skip


def cancel_of(id: str) -> Asked:
    return Asked(
        method="PATCH", path=f"/invocations/{path_of(id)}/cancel", what=f"the cancel of {id}", is_for_operators=True
    )


def status_of(id: str) -> Asked:
    return Asked(
        method="GET", path=f"/invocations/{path_of(id)}", what=f"the status of {id}", is_repeatable=True,
        is_for_operators=True,
    )  # fmt: skip


def path_of(*segments: str) -> str:
    """Segments with what they hold escaped, a `/` too, and what clients take for this segment or the one above."""
    return "/".join(segment.replace(".", "%2E") if segment in DOTS else quote(segment, safe="") for segment in segments)


def _header(name: str, value: str, encoding: str = "latin-1") -> bytes:
    """
    Raises:
        TypeError: HTTP cannot carry it.
    """
    try:
        data = value.encode(encoding)
    except UnicodeEncodeError:
        data = b"\0"
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(data) or data != data.strip(b" \t"):
        raise TypeError(
            f"The header {name!r}: {value!r} cannot be sent over HTTP, which takes names of letters, digits and "
            "hyphens, and values in Latin-1 without control characters and without blanks around them. Send it as an "
            "argument."
        )
    return data
