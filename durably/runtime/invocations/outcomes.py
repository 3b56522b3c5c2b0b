"""Outcomes as the store keeps them."""

from __future__ import annotations

from durably.runtime.execution.step import Outcome


def encode_outcome(outcome: Outcome) -> bytes:
    """One byte says whether it failed; then the value as it is."""
    return (b"!" if outcome.failed else b"=") + outcome.value


def decode_outcome(content: bytes) -> Outcome:
    return Outcome(content[:1] == b"!", content[1:])
