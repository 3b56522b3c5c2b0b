"""Outcomes as the store keeps them."""

from __future__ import annotations

from typing import Final

from durably.errors import UndecodableError
from durably.runtime.execution.step import Outcome

FAILED: Final = b"!"
SUCCEEDED: Final = b"="


def encode_outcome(outcome: Outcome) -> bytes:
    """One byte says whether it failed; then the value as it is."""
    return (FAILED if outcome.failed else SUCCEEDED) + outcome.value


def decode_outcome(content: bytes) -> Outcome:
    """
    Raises:
        UndecodableError: it is none.
    """
    kind = content[:1]
    if kind not in (FAILED, SUCCEEDED):
        raise UndecodableError("It is damaged: it does not say whether it is a result or a failure.")
    return Outcome(kind == FAILED, content[1:])
