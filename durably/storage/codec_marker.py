"""`CodecMarker`: what a store says of the codecs, and the keys, that its values were written with (rule V8).

The marker is the state of an object that no program can have. It holds one value by each codec and key that has ever
written, in two copies: a wrong key, a missing one, and a codec on a store in plain are refused when the store is
opened, before anything is read or written. With one damaged copy the store still opens (rule L5).

A store that has values in plain, too, says how those begin that a codec has written: with bytes that were drawn when
all of its values were in plain.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from durably.errors import StoreUnavailableError, UndecodableError
from durably.storage.introspection import InspectableStore, Introspection
from durably.storage.payload_coding import MARK, Codec, PayloadCoding, is_codec
from durably.storage.records import MARKER, PLAIN_FIELD, StateRecord

CODEC_FIELD: Final = "codec"
"""What the fields begin with that each hold one value which a codec has written. `codec:2027`: with the key `2027`."""
COPY: Final = "#2"
"""What the field of the second copy ends with."""
PLAIN_FIELDS: Final = (PLAIN_FIELD, PLAIN_FIELD + COPY)
MARKER_VALUE: Final = b"durably"
DRAWN_BYTES: Final = 16
"""So many random bytes tell what a codec has written from values in plain."""


def checked_codec(codec: Codec, where: str) -> Codec:
    """A codec that another one is made of, as it was given.

    Raises:
        TypeError: it is none, or is an `AcceptPlain`, which says of the whole that it reads plain values.
    """
    if not is_codec(codec):
        raise TypeError(f"{where}(...) takes what encodes and decodes, not a {type(codec).__name__}.")
    if isinstance(codec, AcceptPlain):
        raise TypeError(f"AcceptPlain(...) goes around all other codecs, and cannot be in {where}(...).")
    return codec


class AcceptPlain:
    """A codec for a store that has values in plain: it reads them as they are, and writes what is new with `codec`.

    So a store can be given a codec while it is in use. `durably encrypt` writes the old values anew, and makes this
    superfluous. Until then, who can write to the file can put a plain value into the place of an encrypted one.
    """

    def __init__(self, codec: Codec) -> None:
        """
        Raises:
            TypeError: it is no codec, or is an `AcceptPlain` already.
        """
        self.codec = checked_codec(codec, "AcceptPlain")
        self.current: str = getattr(codec, "current", "")
        """The id of the key that encodes, if there is one."""
        self.encodes_everything: bool = getattr(codec, "encodes_everything", False)

    def encode(self, data: bytes, /) -> bytes:
        return self.codec.encode(data)

    def decode(self, data: bytes, /) -> bytes:
        return self.codec.decode(data)


class CodecMarker:
    """The marker of one store, for one codec."""

    def __init__(self, store: str, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._coding = PayloadCoding(codec)
        """Of the marker itself."""
        self._accepts_plain = isinstance(codec, AcceptPlain)
        key: str = getattr(codec, "current", "")
        field = f"{CODEC_FIELD}:{_escaped(key)}" if key else CODEC_FIELD
        self._fields = (field, field + COPY)

    def missing(self, known: Mapping[str, bytes], *, is_new: bool) -> list[StateRecord]:
        """What is to be added to a marker that fits: that this codec writes, and whether beside plain values.

        Raises:
            CodecError: the codec is new to the store, and does not decode what it encodes.
        """
        new = [field for field in self._fields if field not in known]
        if new:
            self._coding.check(MARKER_VALUE)
        records = [StateRecord(MARKER, field, self._coding.wrap(MARKER_VALUE)) for field in new]
        if not known and not is_new:
            note = _note(os.urandom(DRAWN_BYTES))
            records += [StateRecord(MARKER, field, note) for field in PLAIN_FIELDS]
        return records

    def coding(self, known: Mapping[str, bytes], *, is_new: bool) -> PayloadCoding:
        """How the values of a store with this marker are wrapped, which the codec fits.

        Raises:
            StoreUnavailableError: it has values in plain, and how the others begin is damaged.
        """
        if not known and not is_new:  # All of its values are in plain.
            return PayloadCoding(self._codec, accepts_plain=True, mark=MARK + os.urandom(DRAWN_BYTES))
        notes = [known[field] for field in PLAIN_FIELDS if field in known]
        if len(notes) < len(PLAIN_FIELDS):  # Where an older version noted it once, all marks were the same.
            return PayloadCoding(self._codec, accepts_plain=bool(notes))
        marks = [MARK + drawn for drawn in map(_drawn, notes) if drawn is not None]
        if not marks:
            raise StoreUnavailableError(
                f"The store {self._store} has values in plain among the encoded ones, and what tells them apart is "
                "damaged. Restore the store from a backup."
            )
        return PayloadCoding(self._codec, accepts_plain=True, mark=marks[0])

    def refuse_unless_readable(self, known: Mapping[str, bytes], *, is_new: bool) -> None:
        """Raise for a store that this codec does not fit. `known` is its marker; `is_new`: it is empty.

        Raises:
            StoreUnavailableError: with a sentence that says what to do.
        """
        if not known and not is_new and not self._accepts_plain:
            raise StoreUnavailableError(
                f"The store {self._store} was written without a codec, and here is one. Stop its runtime and write its "
                "values anew, with `durably encrypt`; or let the runtime read them as they are: codec=AcceptPlain(...)."
            )
        if has_plain_values(known) and not self._accepts_plain:
            raise StoreUnavailableError(
                f"The store {self._store} has values in plain among the encoded ones. Write them anew, with `durably "
                "encrypt`; or let the runtime read them as they are: codec=AcceptPlain(...)."
            )
        for field in sorted({field.removesuffix(COPY) for field in known} - {PLAIN_FIELD}):
            self._refuse_unless_own(field, [known[copy] for copy in (field, field + COPY) if copy in known])

    def _refuse_unless_own(self, field: str, copies: Sequence[bytes]) -> None:
        """One copy that can be read is enough."""
        refusal: UndecodableError | None = None
        for copy in copies:
            try:
                if copy.startswith(MARK) and self._coding.unwrap(copy) == MARKER_VALUE:
                    return
            except UndecodableError as error:
                refusal = error
        if refusal is None:
            raise StoreUnavailableError(f"The store {self._store} was written with another codec.")
        key = _unescaped(field.removeprefix(CODEC_FIELD).removeprefix(":"))
        beside = f" The key {key!r} has written to it: give the codec that one too." if key else ""
        raise StoreUnavailableError(
            f"The codec cannot read the store {self._store}: {refusal.message}{beside}"
        ) from refusal


def _escaped(key: str) -> str:
    """The id of a key in the name of a field: nothing but `COPY` has its sign in it."""
    return key.replace("%", "%25").replace("#", "%23")


def _unescaped(key: str) -> str:
    return key.replace("%23", "#").replace("%25", "%")


def _note(drawn: bytes) -> bytes:
    """What the marker keeps of the bytes that were drawn, as text."""
    return b"%s %s %08x" % (MARKER_VALUE, drawn.hex().encode(), zlib.crc32(drawn))


def _drawn(note: bytes) -> bytes | None:
    """The bytes that were drawn; None: it is damaged."""
    try:
        drawn = bytes.fromhex(note.split(b" ")[1].decode())
    except (IndexError, ValueError):
        return None
    return drawn if note == _note(drawn) else None


def has_plain_values(marker: Mapping[str, bytes]) -> bool:
    """A store with this marker has values in plain among those of a codec."""
    return any(field in marker for field in PLAIN_FIELDS)


async def marker_of(store: Introspection) -> Mapping[str, bytes]:
    """What an open store says of its codecs; a field that is damaged is empty."""
    (marker,) = await store.objects([MARKER])
    return marker.state


def is_encoded(marker: Mapping[str, bytes]) -> bool:
    """A codec has written to the store with this marker."""
    return any(field not in PLAIN_FIELDS for field in marker)


async def refuse_encoded(store: InspectableStore, option: str = "Runtime(codec=...)") -> None:
    """Raise for an open store that holds values of a codec, for those who have none; `option` is where one is given.

    Raises:
        StoreUnavailableError: with a sentence that says what to do.
    """
    if is_encoded(await marker_of(store)):
        raise encoded_error(store.describe(), option)


def encoded_error(store: str, option: str = "Runtime(codec=...)") -> StoreUnavailableError:
    """What those hear who have no codec for a store that was written with one."""
    return StoreUnavailableError(
        f"The store {store} was written with a codec, and there is none here to read it. Give the one that wrote it, "
        f"with its keys: {option}. Or write the values in plain with `durably decrypt`."
    )
