"""Names that every layer shares: where an invocation lives, what state it is in, and how ids are made.

Ids are opaque to users. Random ones come from an `Entropy` that is handed in, so that a simulation can make the same
ones again; derived ones come from the secret seed of the execution that asked for them (rule C4), never from public
names.

An invocation id has the form that Restate's command line parses: `inv_1`, 11 base62 digits of a 64-bit number, 22 of a
128-bit number. The first number is a hash of the object's address, so all invocations of an object begin alike; an
invocation of a service has no address of its own, and a random number instead. The older form, `inv_` and 32
hexadecimal digits, stays valid: a derived id has the form of the id that it is derived from, so a journal of either
form replays. Ids of both forms are looked up as text.
"""

from __future__ import annotations

import os
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from io import BytesIO
from struct import Struct
from typing import NamedTuple, Protocol, TypeVar
from weakref import WeakSet

T = TypeVar("T")

SEED_BYTES = 16
SEED_TIME_BYTES = 8
SEED_STEPS_BYTES = 4
_FOLLOWED_BY_ID = 1 << (8 * SEED_STEPS_BYTES - 1)
"""Set in the number of steps of a seed where those are of another invocation."""
CONTINUED_SEED_BYTES = SEED_BYTES + SEED_TIME_BYTES

INVOCATION_PREFIX = "inv_1"
ADDRESS_DIGITS = 11
UNIQUE_DIGITS = 22
HASHED_ADDRESSES = 4096
"""How many addresses keep the first digits of their ids in memory."""

OLDER_PREFIX = "inv_"
OLDER_BYTES = 16
OLDER_LENGTH = len(OLDER_PREFIX) + 2 * OLDER_BYTES

AWAKEABLE_PREFIX = "sign_1"
"""The ids of awakeables begin like this, and no name of a signal does."""
AWAKEABLE_COMMAND_BYTES = 4
AWAKEABLE_PROOF_BYTES = 8

BASE62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Address(NamedTuple):
    """Where an invocation runs: a virtual object, or one invocation of a service (then `key` is its own id)."""

    service: str
    key: str


class EntryKey(NamedTuple):
    """The key of an entry in a collection of an object (rule V7). Entries are in the order of these.

    An entry of a list has a position and no name. One of a dictionary has a name that begins with `=` and goes on with
    the key, or the name `#` and the key as its position. A field that is loaded lazily has one entry, (0, '').
    """

    position: int
    name: str


class KeyScope(NamedTuple):
    """What an idempotency key is unique in (rule C7). `key` is the object's, and empty for a service.

    The `run` of a workflow has one without an idempotency key, which no user can give: so one scope is one workflow id.
    """

    service: str
    key: str
    handler: str
    idempotency_key: str

    @property
    def is_workflow_id(self) -> bool:
        """It stands for the `run` of a workflow."""
        return not self.idempotency_key


STATE_VERSION_FIELD = "durably:state-version"
"""The stored field of an object that says which version its state has, where that is not the first."""

GOING_FIELD = "durably:going"
"""The stored field of an object that is being removed in several transactions: readers see nothing of what is left."""

INTERNAL_FIELDS = frozenset({STATE_VERSION_FIELD, GOING_FIELD})
"""Stored fields of an object that are no state."""


def visible_state(stored: Mapping[str, T]) -> dict[str, T]:
    """What is seen of the stored fields of an object: nothing of one that goes."""
    if GOING_FIELD in stored:
        return {}
    return {name: value for name, value in stored.items() if name not in INTERNAL_FIELDS}


RUN = "run"
"""The name of the handler of a workflow that executes once."""


def run_scope(service: str, id: str) -> KeyScope:
    """The scope of the `run` of a workflow."""
    return KeyScope(service, id, RUN, "")


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

    __slots__ = ("__weakref__", "_read")

    BLOCK_BYTES = 4096

    def __init__(self) -> None:
        self._read = BytesIO().read
        if hasattr(os, "register_at_fork"):
            _pools.add(self)

    def drop(self) -> None:
        """Forget what has been read and not used."""
        self._read = BytesIO().read

    def random_bytes(self, count: int, /) -> bytes:
        taken = self._read(count)
        if len(taken) < count:
            self._read = BytesIO(os.urandom(max(self.BLOCK_BYTES, count))).read
            taken = self._read(count)
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


# Base62 by arithmetic takes two microseconds for an id, a tenth of a call. One byte for each digit, through a table,
# takes a quarter. The leading digit has a table of its own, which keeps the number below its power of two.


def _leading_digits(digits: int, bits: int) -> str:
    largest = 2**bits // len(BASE62) ** (digits - 1)
    return "".join(BASE62[byte % largest] for byte in range(256))


_DIGIT = bytes(ord(BASE62[byte % len(BASE62)]) for byte in range(256))
_LEADING_ADDRESS_DIGIT = _leading_digits(ADDRESS_DIGITS, 64)
_LEADING_UNIQUE_DIGIT = _leading_digits(UNIQUE_DIGITS, 128)
_IDENTITY = Struct(f"B{UNIQUE_DIGITS - 1}s{SEED_BYTES}s")


def new_identity(entropy: Entropy, service: str, key: str | None) -> tuple[str, bytes]:
    """A fresh id, and the secret seed, of an invocation that the outside world asks for."""
    leading, others, seed = _IDENTITY.unpack(entropy.random_bytes(_IDENTITY.size))
    prefix = _prefix(entropy.random_bytes(ADDRESS_DIGITS)) if key is None else _address_prefix(service, key)
    return f"{prefix}{_LEADING_UNIQUE_DIGIT[leading]}{others.translate(_DIGIT).decode()}", seed


def are_of_one_address(one: str, other: str) -> bool:
    """Whether two ids begin with the same address; for ids that older versions made, whether they are the same."""
    length = len(INVOCATION_PREFIX) + ADDRESS_DIGITS
    return one[:length] == other[:length] if one.startswith(INVOCATION_PREFIX) else one == other


def new_seed(entropy: Entropy) -> bytes:
    """The secret seed of an invocation whose id is derived."""
    return entropy.random_bytes(SEED_BYTES)


def next_seed(
    entropy: Entropy, not_before: int, *, steps: int = 0, earlier: bytes = b"", earlier_id: str = ""
) -> bytes:
    """The secret seed of an execution that follows another of the same invocation, whose time it continues (rule T1).

    It is longer than that of a first one: the random bytes, then the time, in microseconds since 1970 UTC. One that
    keeps the first `steps` steps goes on with their number and the seed that they were made with (rule W2); where they
    are those of another invocation, its id stands before that seed.
    """
    seed = entropy.random_bytes(SEED_BYTES) + not_before.to_bytes(SEED_TIME_BYTES, "big")
    if not steps:
        return seed
    if not earlier_id:
        return seed + steps.to_bytes(SEED_STEPS_BYTES, "big") + earlier
    own_id = earlier_id.encode()
    return seed + (steps | _FOLLOWED_BY_ID).to_bytes(SEED_STEPS_BYTES, "big") + bytes([len(own_id)]) + own_id + earlier


def earliest_time(seed: bytes) -> int:
    """Before when no step of the execution with this seed is; 0 for a first one."""
    return int.from_bytes(seed[SEED_BYTES:CONTINUED_SEED_BYTES], "big")


class UsedSeed(NamedTuple):
    """What an execution derives ids and random numbers from, for some of its steps."""

    first_step: int
    random_bytes: bytes
    id: str
    """Of the invocation that made these steps."""


def seeds_of(seed: bytes, id: str) -> list[UsedSeed]:
    """What the execution with this seed uses, of the invocation `id`, in the order of its steps."""
    own = seed[:SEED_BYTES]
    if len(seed) <= CONTINUED_SEED_BYTES:
        return [UsedSeed(0, own, id)]
    earlier_at = CONTINUED_SEED_BYTES + SEED_STEPS_BYTES
    steps = int.from_bytes(seed[CONTINUED_SEED_BYTES:earlier_at], "big")
    first, earlier_id = steps & ~_FOLLOWED_BY_ID, id
    if steps & _FOLLOWED_BY_ID:
        id_at, earlier_at = earlier_at + 1, earlier_at + 1 + seed[earlier_at]
        earlier_id = seed[id_at:earlier_at].decode()
    earlier = seeds_of(seed[earlier_at:], earlier_id)
    return [*(one for one in earlier if one.first_step < first), UsedSeed(first, own, id)]


def derived_invocation_id(id: str, seed: bytes, command: int, service: str, key: str | None) -> str:
    """The id of what command number `command` starts at this address: the same on replay.

    `id` and `seed` are those of the execution that issues the command.
    """
    purpose = b"callee%d" % command
    if len(id) == OLDER_LENGTH:
        return OLDER_PREFIX + blake2b(purpose, digest_size=OLDER_BYTES, key=seed[:SEED_BYTES]).hexdigest()
    drawn = blake2b(purpose, digest_size=UNIQUE_DIGITS + ADDRESS_DIGITS, key=seed[:SEED_BYTES]).digest()
    prefix = _prefix(drawn[UNIQUE_DIGITS:]) if key is None else _address_prefix(service, key)
    return f"{prefix}{_LEADING_UNIQUE_DIGIT[drawn[0]]}{drawn[1:UNIQUE_DIGITS].translate(_DIGIT).decode()}"


class AwakeableId(NamedTuple):
    """What the id of an awakeable says: which command of which invocation, and the proof that its execution made it."""

    invocation_id: str
    command: int
    proof: bytes

    def is_of(self, seed: bytes) -> bool:
        """The execution with this seed made it (rule C4): neither one before it, nor somebody who guesses."""
        return compare_digest(self.proof, _awakeable_proof(seed, self.command))


def awakeable_id(id: str, seed: bytes, command: int) -> str:
    """The id of the awakeable that command number `command` makes: the same on replay.

    `id` and `seed` are those of the execution that issues the command.
    """
    number = command.to_bytes(AWAKEABLE_COMMAND_BYTES, "big")
    content = _bits_of(id) + number + _awakeable_proof(seed, command)
    return AWAKEABLE_PREFIX + urlsafe_b64encode(content).decode().rstrip("=")


def parse_awakeable_id(text: str) -> AwakeableId | None:
    """What the id of an awakeable says, or None for what cannot be one."""
    digits = text[len(AWAKEABLE_PREFIX) :]
    if not text.startswith(AWAKEABLE_PREFIX) or not text.isascii() or len(digits) not in _AWAKEABLE_DIGITS:
        return None
    padded = digits + "=" * (-len(digits) % 4)
    try:
        content = b64decode(padded, altchars=b"-_", validate=True)
    except ValueError:
        return None
    if urlsafe_b64encode(content).decode() != padded:  # The last digit says more than there is to say.
        return None
    proof_at = len(content) - AWAKEABLE_PROOF_BYTES
    command_at = proof_at - AWAKEABLE_COMMAND_BYTES
    command = int.from_bytes(content[command_at:proof_at], "big")
    return AwakeableId(_id_of(content[:command_at]), command, content[proof_at:])


_AWAKEABLE_DIGITS = tuple(
    -(-(bits + AWAKEABLE_COMMAND_BYTES + AWAKEABLE_PROOF_BYTES) * 4 // 3) for bits in (8 + SEED_BYTES, OLDER_BYTES)
)
"""How many digits follow the prefix: for ids of today's form, and of the older one."""


def _awakeable_proof(seed: bytes, command: int) -> bytes:
    return blake2b(b"awakeable%d" % command, digest_size=AWAKEABLE_PROOF_BYTES, key=seed[:SEED_BYTES]).digest()


def _bits_of(id: str) -> bytes:
    """The numbers that an invocation's id is made of."""
    if len(id) == OLDER_LENGTH:
        return bytes.fromhex(id[len(OLDER_PREFIX) :])
    digits = id[len(INVOCATION_PREFIX) :]
    address, unique = digits[:ADDRESS_DIGITS], digits[ADDRESS_DIGITS:]
    return _number_of(address).to_bytes(8, "big") + _number_of(unique).to_bytes(16, "big")


def _id_of(bits: bytes) -> str:
    """The invocation's id that is made of these numbers."""
    if len(bits) == OLDER_BYTES:
        return OLDER_PREFIX + bits.hex()
    address, unique = int.from_bytes(bits[:8], "big"), int.from_bytes(bits[8:], "big")
    return f"{INVOCATION_PREFIX}{_digits_of(address, ADDRESS_DIGITS)}{_digits_of(unique, UNIQUE_DIGITS)}"


def _number_of(digits: str) -> int:
    number = 0
    for digit in digits:
        number = number * len(BASE62) + BASE62.index(digit)
    return number


def _digits_of(number: int, count: int) -> str:
    digits: list[str] = []
    for _ in range(count):
        number, digit = divmod(number, len(BASE62))
        digits.append(BASE62[digit])
    return "".join(reversed(digits))


@lru_cache(HASHED_ADDRESSES)
def _address_prefix(service: str, key: str) -> str:
    # No name contains NUL (`is_storable`), so two addresses never give the same bytes.
    address = f"{service}\0{key}".encode(errors="surrogatepass")
    return _prefix(blake2b(address, digest_size=ADDRESS_DIGITS).digest())


def _prefix(drawn: bytes) -> str:
    return INVOCATION_PREFIX + _LEADING_ADDRESS_DIGIT[drawn[0]] + drawn[1:].translate(_DIGIT).decode()
