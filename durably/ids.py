"""Names that every layer shares: where an invocation lives, what state it is in, and how ids are made.

Ids are opaque to users. Random ones come from an `Entropy` that is handed in, so that a simulation can make the same
ones again; derived ones come from the secret seed of the execution that asked for them (rule C4), never from public
names.
"""

from __future__ import annotations

import os
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple, Protocol
from weakref import WeakSet

ID_BYTES = 16
SEED_BYTES = 16
INVOCATION_PREFIX = "inv_"


class Address(NamedTuple):
    """Where an invocation runs: a virtual object, or one invocation of a service (then `key` is its own id)."""

    service: str
    key: str


class KeyScope(NamedTuple):
    """What an idempotency key is unique in (rule C7). `key` is the object's, and empty for a service."""

    service: str
    key: str
    handler: str
    idempotency_key: str


class InvocationStatus(StrEnum):
    """Where an invocation stands, as an operator sees it and as the store keeps it."""

    SCHEDULED = "scheduled"
    """Accepted with a delay that has not passed."""
    PENDING = "pending"
    """Waits in the mailbox of its object."""
    RUNNING = "running"
    """Has started, and nothing but this process is needed to go on."""
    BACKING_OFF = "backing-off"
    """Failed, and will be tried again at a known time."""
    SUSPENDED = "suspended"
    """Waits for something durable: a timer, an answer."""
    PAUSED = "paused"
    """Waits for a person."""
    COMPLETED = "completed"
    """Has an outcome."""


class Entropy(Protocol):
    """Where random bytes come from."""

    def random_bytes(self, count: int, /) -> bytes: ...


class SystemEntropy:
    """The operating system's random bytes, read in blocks because one system call for each id costs more than the id.

    Not shared between threads; a forked child drops what it inherited, so that two processes never make the same id.
    """

    __slots__ = ("__weakref__", "_block", "_offset")

    BLOCK_BYTES = 4096

    def __init__(self) -> None:
        self._block = b""
        self._offset = 0
        if hasattr(os, "register_at_fork"):
            _pools.add(self)

    def drop(self) -> None:
        """Forget what has been read and not used."""
        self._block = b""

    def random_bytes(self, count: int, /) -> bytes:
        end = self._offset + count
        if end > len(self._block):
            self._block = os.urandom(max(self.BLOCK_BYTES, count))
            self._offset, end = 0, count
        taken = self._block[self._offset : end]
        self._offset = end
        return taken


def is_storable(name: str) -> bool:
    """Names (keys, ids, headers, field names) are Unicode text without NUL: nothing else survives every store."""
    if "\0" in name:
        return False
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


_pools: WeakSet[SystemEntropy] = WeakSet()


def _drop_in_child() -> None:
    for pool in _pools:
        pool.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)


def new_identity(entropy: Entropy) -> tuple[str, bytes]:
    """A fresh id, and the secret seed, of an invocation that the outside world asks for."""
    drawn = entropy.random_bytes(ID_BYTES + SEED_BYTES)
    return INVOCATION_PREFIX + drawn[:ID_BYTES].hex(), drawn[ID_BYTES:]


def new_seed(entropy: Entropy) -> bytes:
    """The secret seed of an invocation whose id is derived."""
    return entropy.random_bytes(SEED_BYTES)


def derived_invocation_id(seed: bytes, command: int) -> str:
    """The id of what command number `command` of the execution with this seed starts: the same on replay."""
    return INVOCATION_PREFIX + blake2b(b"callee%d" % command, digest_size=ID_BYTES, key=seed).hexdigest()
