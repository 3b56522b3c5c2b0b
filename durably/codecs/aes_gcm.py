"""`AesGcmCodec`: stored values encrypted and authenticated by AES-256-GCM, with keys that rotate (rule V8).

Each process draws a salt of 128 random bits for each codec, again after a fork, and derives a data key from the key and
the salt by HKDF. So the nonce can be a counter: no data key sees one twice. Random nonces would be used up within days
at 5,000 calls a second, and a store's id and epoch repeat when a backup is restored. Header and ciphertext are:

    version (1) | length of the key's id (1) | key id | salt (16) | counter (8) | ciphertext and tag

The header is authenticated. What is not: where a value stands. Who can write to the file can move one to another place.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from durably.actors.values.type_checks import is_mapping
from durably.errors import UndecodableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION: Final = 1
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_PREFIX: Final = b"\0\0\0\0"
COUNTER: Final = struct.Struct(">Q")
PURPOSE: Final = b"durably stored value 1"
KEPT_DATA_KEYS: Final = 256
"""Each process that wrote to the store has left one salt."""

_codecs: WeakSet[AesGcmCodec] = WeakSet()


class AesGcmCodec:
    """Encrypts with one key, and decrypts with all that it is given. Needs the extra `crypto`.

    `AesGcmCodec(key)` has one key of 32 bytes; `AesGcmCodec({"2026": old, "2027": new}, current="2027")` encrypts with
    the current one. Keep each key for as long as a stored value may have been written with it.
    `AesGcmCodec.new_key()` draws a key. The id of one that is given alone is empty: `{"": old, "2027": new}`.

    Raises:
        TypeError: a key is not bytes, or an id no text.
        ValueError: a key has another length, or an id is longer than 255 bytes.
        ModuleNotFoundError: `cryptography` is missing; says what to install.
    """

    encodes_everything = True

    def __init__(self, keys: bytes | Mapping[str, bytes], *, current: str | None = None) -> None:
        by_id = _by_id(keys)
        if current is None:
            if len(by_id) != 1:
                raise ValueError(f"AesGcmCodec was given {len(by_id)} keys. Say which one encrypts: current=...")
            (current,) = by_id
        if current not in by_id:
            raise ValueError(f"AesGcmCodec(current={current!r}) names none of its keys: {', '.join(by_id)}.")
        for id, key in by_id.items():
            if len(key) != KEY_BYTES:
                raise ValueError(
                    f"The key {id!r} of AesGcmCodec has {len(key)} bytes, and AES-256 takes {KEY_BYTES}. "
                    "AesGcmCodec.new_key() draws one."
                )
            if len(id.encode(errors="surrogatepass")) > 255:
                raise ValueError(f"The id of a key of AesGcmCodec has at most 255 bytes; {id!r} has more.")
            if not id.isprintable():
                raise ValueError(f"The id of a key of AesGcmCodec is printable text, not {id!r}.")
        self._refusal = _refusal()
        self._keys = by_id
        self.current = current
        """The id of the key that encrypts."""
        self._data_key_for = lru_cache(KEPT_DATA_KEYS)(self._new_data_key)
        self.begin_anew()
        _codecs.add(self)

    @staticmethod
    def new_key() -> bytes:
        """A key of 32 random bytes. Keep it apart from the store, and from its backups."""
        return os.urandom(KEY_BYTES)

    def encode(self, data: bytes, /) -> bytes:
        """Encrypt a value."""
        counter = COUNTER.pack(next(self._counter))
        header = self._header + counter
        return header + self._data_key.encrypt(NONCE_PREFIX + counter, data, header)

    def decode(self, data: bytes, /) -> bytes:
        """Decrypt a value.

        Raises:
            UndecodableError: it was encrypted with a key that is not here, or was changed since.
        """
        id_end = 2 + (data[1] if len(data) > 1 else 0)
        salt_end = id_end + SALT_BYTES
        end = salt_end + COUNTER.size
        if len(data) < end or data[0] != VERSION:
            raise UndecodableError("A stored value was not written by AesGcmCodec.")
        id, salt, counter = data[2:id_end], data[id_end:salt_end], data[salt_end:end]
        data_key = self._data_key_for(id, salt)
        try:
            return data_key.decrypt(NONCE_PREFIX + counter, data[end:], data[:end])
        except self._refusal:
            raise UndecodableError(
                f"A stored value cannot be decrypted: the key {_shown(id)} is a different one here than where it was "
                "encrypted, or the value was changed since."
            ) from None

    def begin_anew(self) -> None:
        """Draw a salt, and count from 0 under its data key. A forked child does so before anything else."""
        id, salt = self.current.encode(), os.urandom(SALT_BYTES)
        self._header = bytes([VERSION, len(id)]) + id + salt
        self._counter = itertools.count()
        self._data_key = self._data_key_for(id, salt)

    def _new_data_key(self, id: bytes, salt: bytes) -> AESGCM:
        key = self._keys.get(id.decode(errors="replace"))
        if key is None:
            raise UndecodableError(
                f"A stored value was encrypted with the key {_shown(id)}, which is not here. Give it to AesGcmCodec "
                "beside the current one."
            )
        return _derived(key, salt)


def _by_id(keys: object) -> dict[str, bytes]:
    by_id = {"": keys} if isinstance(keys, bytes) else keys
    if not is_mapping(by_id):
        raise TypeError(f"AesGcmCodec takes a key of {KEY_BYTES} bytes, or keys by their ids, not a {_class(keys)}.")
    for id, key in by_id.items():
        if not isinstance(id, str):
            raise TypeError(f"The id of a key of AesGcmCodec is text, not {id!r}.")
        if not isinstance(key, bytes):
            raise TypeError(f"The key {id!r} of AesGcmCodec is {KEY_BYTES} bytes, not a {_class(key)}.")
    return dict(by_id)


def _class(key: object) -> str:
    """Of what is no key; it may be one all the same, in another form, so it is not shown."""
    return type(key).__name__


def _shown(id: bytes) -> str:
    return repr(id.decode(errors="replace")) if id else "that was given alone, whose id is ''"


def _derived(key: bytes, salt: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, PURPOSE).derive(key))


def _refusal() -> type[Exception]:
    """What `cryptography` raises for a value that it cannot authenticate."""
    try:
        from cryptography.exceptions import InvalidTag
    except ModuleNotFoundError:
        raise ModuleNotFoundError("AesGcmCodec needs cryptography: pip install 'durably[crypto]'.") from None
    return InvalidTag


def _begin_anew_in_child() -> None:
    """Parent and child would else count on under one data key, and use each nonce twice."""
    for codec in list(_codecs):
        codec.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_in_child)
