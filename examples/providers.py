"""A payment provider and a mail provider that are not there: what the tour talks to instead of the real ones.

They behave as real ones do: the payment provider is slow when it is told to be, it fails at times, and it de-duplicates
by the key of the request, so that asking twice pays once. What they did stands in a ledger. Given a path it is a file
outside the process, one JSON object per line: it tells, after a crash, what really happened.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from random import Random


class PaymentRefusedError(Exception):
    """The provider was not available this time. Asking again is the right thing to do."""


class Ledger:
    """What the providers did, in order."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: list[Mapping[str, object]] = []

    def append(self, **entry: object) -> None:
        """Write down what was done, before anyone is told."""
        if self._path is None:
            self._entries.append(entry)
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[Mapping[str, object]]:
        """All of it."""
        if self._path is None:
            return list(self._entries)
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]

    def of(self, kind: str) -> list[Mapping[str, object]]:
        """The entries of one kind: `request`, `payment` or `mail`."""
        return [entry for entry in self.entries() if entry["kind"] == kind]


class PaymentProvider:
    """Takes money. `failing` is how often it is not available, `seconds` how long its answer takes."""

    LIMIT = 10_000

    def __init__(self, ledger: Ledger, *, failing: float = 0.0, seconds: float = 0.0, seed: int = 3) -> None:
        self._ledger = ledger
        self._failing = failing
        self._seconds = seconds
        self._random = Random(seed)

    async def charge(self, key: str, amount: int) -> bool:
        """Charge `amount` dollars, once per `key`. False: the card does not cover it.

        Raises:
            PaymentRefusedError: not this time.

        """
        self._ledger.append(kind="request", key=key, amount=amount)
        if self._random.random() < self._failing:
            raise PaymentRefusedError("the payment provider is not available, try again")
        if amount > self.LIMIT:
            return False
        if not any(payment["key"] == key for payment in self._ledger.of("payment")):
            self._ledger.append(kind="payment", key=key, amount=amount)
        await asyncio.sleep(self._seconds)  # The money has moved, and nobody knows it yet: the worst moment to crash.
        return True


class MailProvider:
    """Sends mail. An ordinary function: durably runs it in a thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def send(self, to: str, text: str) -> None:
        """Send one mail."""
        self._ledger.append(kind="mail", to=to, text=text)
