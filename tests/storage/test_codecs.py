"""The codecs: what is encoded comes back, what was changed or is not theirs is refused, and no nonce comes twice."""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably.codecs import AcceptPlain, AesGcmCodec, Codec, CodecChain, CompressionCodec
from durably.codecs.aes_gcm import COUNTER, SALT_BYTES
from durably.errors import UndecodableError

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def rotated() -> AesGcmCodec:
    return AesGcmCodec({"2026": OLD, "2027": NEW}, current="2027")


CODECS: list[Codec] = [
    AesGcmCodec(OLD),
    rotated(),
    CompressionCodec(),
    CompressionCodec(level=9, threshold_bytes=0),
    CodecChain(CompressionCodec(threshold_bytes=8), rotated()),
]
VALUES = some.binary() | some.integers(0, 40_000).map(lambda length: b"ab" * length)


@given(some.sampled_from(CODECS), VALUES)
def test_what_is_encoded_comes_back(codec: Codec, value: bytes) -> None:
    assert codec.decode(codec.encode(value)) == value


@given(some.sampled_from(CODECS[:2]), some.binary(max_size=64), some.data())
def test_no_bit_of_an_encrypted_value_can_be_changed(codec: Codec, value: bytes, data: some.DataObject) -> None:
    encoded = bytearray(codec.encode(value))
    place = data.draw(some.integers(0, len(encoded) - 1))
    encoded[place] ^= 1 << data.draw(some.integers(0, 7))
    with pytest.raises(UndecodableError):
        codec.decode(bytes(encoded))


@given(some.sampled_from(CODECS), some.binary(max_size=64))
def test_bytes_of_something_else_are_refused_or_decoded_but_never_a_traceback(codec: Codec, data: bytes) -> None:
    with suppress(UndecodableError):
        codec.decode(data)


def test_a_value_encrypted_with_a_key_that_was_rotated_can_be_read_and_is_written_with_the_current_one() -> None:
    old = AesGcmCodec({"2026": OLD}).encode(b"secret")
    assert rotated().decode(old) == b"secret"
    with pytest.raises(UndecodableError, match="'2027', which is not here"):
        AesGcmCodec({"2026": OLD}).decode(rotated().encode(b"secret"))
    with pytest.raises(UndecodableError, match="a different one here"):
        AesGcmCodec({"2026": NEW}).decode(old)


def nonce(encoded: bytes) -> bytes:
    """What no two values may have in common: the salt of the data key, and the counter."""
    begin = 2 + encoded[1]
    return encoded[begin : begin + SALT_BYTES + COUNTER.size]


def test_no_nonce_comes_twice_in_a_process_in_two_codecs_or_after_a_fork() -> None:
    codec, twin = AesGcmCodec(OLD), AesGcmCodec(OLD)
    nonces = [nonce(one.encode(b"x")) for one in (codec, twin) for _ in range(50)]
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, b"".join(nonce(codec.encode(b"x")) for _ in range(50)))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    size = SALT_BYTES + COUNTER.size
    nonces += [told[place : place + size] for place in range(0, len(told), size)]
    nonces += [nonce(codec.encode(b"x")) for _ in range(50)]
    assert len(set(nonces)) == len(nonces) == 200


def test_a_value_that_would_fill_the_memory_is_refused() -> None:
    codec = CompressionCodec(largest_bytes=1_000)
    bomb = b"\x01" + zlib.compress(b"0" * 1_001)
    with pytest.raises(UndecodableError, match="more than 1,000 bytes"):
        codec.decode(bomb)
    assert codec.decode(b"\x01" + zlib.compress(b"0" * 1_000)) == b"0" * 1_000
    with pytest.raises(UndecodableError, match="its end is missing"):
        codec.decode(b"\x01" + zlib.compress(b"0" * 100)[:-4])


@given(some.binary(max_size=40).map(lambda data: data * 40), some.integers(0, 2_000), some.integers(0, 2_000))
def test_compression_reads_what_it_writes_whatever_its_limits_are(data: bytes, threshold: int, largest: int) -> None:
    codec = CompressionCodec(threshold_bytes=threshold, largest_bytes=largest)
    assert codec.decode(codec.encode(data)) == data


def test_compression_leaves_what_would_grow_as_it_is() -> None:
    value = os.urandom(1_000)
    assert len(CompressionCodec().encode(value)) == len(value) + 1


@pytest.mark.parametrize(
    ("keys", "current", "sentence"),
    [
        (b"short", None, "has 5 bytes"),
        ({"a": OLD, "b": NEW}, None, "which one encrypts"),
        ({"a": OLD}, "b", "names none of its keys: a"),
        ({"x" * 256: OLD}, None, "at most 255 bytes"),
        ({"a\ud800": OLD}, None, "printable text"),
        ("x" * 32, None, "a key of 32 bytes, or keys by their ids, not a str"),
        (bytearray(32), None, "not a bytearray"),
        (None, None, "not a NoneType"),
        ({"a": "x" * 32}, None, "The key 'a' of AesGcmCodec is 32 bytes, not a str"),
        ({1: OLD}, None, "is text, not 1"),
    ],
)
def test_keys_without_sense_are_refused(keys: Any, current: str | None, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence) as refused:
        AesGcmCodec(keys, current=current)
    assert "x" * 32 not in str(refused.value).replace("x" * 256, "")  # It may be a key.


def test_a_key_that_was_given_alone_is_rotated_by_its_empty_id() -> None:
    stored = AesGcmCodec(OLD).encode(b"x")
    assert AesGcmCodec({"": OLD, "2027": NEW}, current="2027").decode(stored) == b"x"
    with pytest.raises(UndecodableError, match="given alone, whose id is ''"):
        AesGcmCodec({"2026": OLD, "2027": NEW}, current="2027").decode(stored)


def test_a_level_and_a_chain_that_make_no_sense_are_refused() -> None:
    level: Any
    for level in (0, 10, "3", True, 2.0):
        with pytest.raises(ValueError, match="1 to 9"):
            CompressionCodec(level=level)
    size: Any
    for size in (-1, "1", None, 0.5):
        with pytest.raises(ValueError, match=r"threshold_bytes=\.\.\.\) is a number of bytes"):
            CompressionCodec(threshold_bytes=size)
        with pytest.raises(ValueError, match=r"largest_bytes=\.\.\.\) is a number of bytes"):
            CompressionCodec(largest_bytes=size)
    with pytest.raises(TypeError, match="no codecs"):
        CodecChain()
    no_codec: Any
    for no_codec in (None, b"key", AesGcmCodec):
        with pytest.raises(TypeError, match=r"CodecChain\(...\) takes what encodes") as refused:
            CodecChain(CompressionCodec(), no_codec)
        assert "key" not in str(refused.value)  # What was given may be one.
        with pytest.raises(TypeError, match=r"AcceptPlain\(...\) takes what encodes"):
            AcceptPlain(no_codec)
    with pytest.raises(TypeError, match="around all other codecs"):
        CodecChain(AcceptPlain(CompressionCodec()))


def test_a_new_key_is_a_key() -> None:
    key = AesGcmCodec.new_key()
    assert AesGcmCodec(key).decode(AesGcmCodec(key).encode(b"x")) == b"x"
