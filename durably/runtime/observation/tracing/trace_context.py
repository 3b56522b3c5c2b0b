"""`TraceContext`: which trace an invocation belongs to, as W3C Trace Context writes it in headers.

Everything here follows from what is stored with an invocation: its id, the seed of its execution and the headers that
it came with. So a replay, another process and a second look find the same ids, and no span has two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

from durably.actors.headers import REPEATED
from durably.ids import SEED_BYTES
from durably.runtime.invocations.invocation import InvocationRun

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
SAMPLED: Final = 1
TRACE_BYTES: Final = 16
SPAN_BYTES: Final = 8
LONGEST_STATE: Final = 512
"""Characters of a `tracestate` that are carried on; W3C asks for so many."""

# A later version than 00 may go on after the flags (W3C Trace Context, 4.3).
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)


class Parent(NamedTuple):
    """The span that an invocation was called in, as its headers name it."""

    trace_id: int
    span_id: int
    flags: int


Sampler: TypeAlias = Callable[[int, Parent | None], bool]
"""Whether an invocation of this trace is recorded. It must say the same each time."""


class TraceContext(NamedTuple):
    """The span of an invocation, and where that hangs."""

    trace_id: int
    span_id: int
    parent_id: int | None
    """The span that called it, perhaps in another program. None: the trace begins here."""
    flags: int
    state: str
    """`tracestate`, which is carried on as it came."""

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)


def trace_context(invocation_id: str, headers: Mapping[str, str], sampler: Sampler) -> TraceContext:
    """The context of an invocation that came with these headers."""
    parent = parsed(headers.get(TRACEPARENT, "")) if headers else None
    trace_id = _number(TRACE_BYTES, invocation_id) if parent is None else parent.trace_id
    return TraceContext(
        trace_id,
        _number(SPAN_BYTES, invocation_id),
        None if parent is None else parent.span_id,
        SAMPLED if sampler(trace_id, parent) else 0,
        "" if parent is None else headers.get(TRACESTATE, "").replace(REPEATED, ","),
    )


def parsed(traceparent: str) -> Parent | None:
    """The span that a `traceparent` names. None: it names none, and the trace begins anew."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    return Parent(int(found[2], 16), int(found[3], 16), int(found[4], 16) & SAMPLED)


def written(trace_id: int, span_id: int, flags: int) -> str:
    """A `traceparent`."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"


def with_context(headers: Mapping[str, str], trace_id: int, span_id: int, flags: int, state: str) -> dict[str, str]:
    """Headers, with the span in which the message is sent."""
    traced = {**headers, TRACEPARENT: written(trace_id, span_id, flags)}
    traced.pop(TRACESTATE, None)
    if state and len(state) <= LONGEST_STATE:
        traced[TRACESTATE] = state
    return traced


def command_span_id(invocation_id: str, seed: bytes, number: int) -> int:
    """The span of a command. Each execution of an invocation has a seed of its own (rule W1)."""
    return _number(SPAN_BYTES, f"{invocation_id}/{number}", seed[:SEED_BYTES])


class TraceHeaders:
    """Gives what handlers call and send the context of the command that did."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def __call__(self, sender: InvocationRun, number: int, headers: dict[str, str]) -> dict[str, str]:
        """The headers of a message, with its context; a context that the handler gave stays."""
        if TRACEPARENT in headers:
            return headers
        context = trace_context(sender.id, sender.headers, self._sampler)
        span_id = command_span_id(sender.id, sender.seed, number)
        return with_context(headers, context.trace_id, span_id, context.flags, context.state)


def _number(size: int, text: str, key: bytes = b"") -> int:
    """Never 0, which stands for no id."""
    return int.from_bytes(blake2b(text.encode(), digest_size=size, key=key, person=b"durably-trace").digest()) or 1
