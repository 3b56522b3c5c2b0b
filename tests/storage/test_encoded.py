"""`EncodedStore` keeps the contract of stores, lets no value through in plain, and knows its codec again (rule V8)."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from typing_extensions import override

from durably import (
    BytesSerde,
    DefinitionError,
    ObjectContext,
    PausedInvocationError,
    Runtime,
    StoreUnavailableError,
    VirtualObject,
    handler,
    state,
)
from durably.codecs import AcceptPlain, AesGcmCodec, Codec, CodecChain, CompressionCodec
from durably.errors import CodecError
from durably.storage.codec_marker import refuse_encoded
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.memory import Disk, MemoryStore
from durably.storage.payload_coding import HEADER_MARK, MARK, is_codec
from durably.storage.recoding import Stage, recode
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness
from durably.testing.stores.contract import StoreContract
from tests.levels import level
from tests.storage.samples import OWNER

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
SECRET = "the-secret-of-mary"


def codec() -> Codec:
    return CodecChain(CompressionCodec(), AesGcmCodec(KEY))


class TestEncodedStore(StoreContract):
    examples = level().examples
    keeps_values_as_given = False

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.paths = (tmp_path / f"{number}.db" for number in count())

    @override
    def make_store(self) -> InspectableStore:
        return EncodedStore(SqliteStore(next(self.paths)), codec())

    @override
    def make_rival(self, store: InspectableStore) -> InspectableStore:
        assert isinstance(store, EncodedStore)
        assert isinstance(store.inner, SqliteStore)
        store.inner.path.with_name(store.inner.path.name + ".lock").unlink()
        return EncodedStore(SqliteStore(store.inner.path), codec())


class Diary(VirtualObject):
    lines: list[str] = state(default_factory=list)

    @handler
    async def write(self, ctx: ObjectContext, line: str) -> list[str]:
        self.lines.append(await ctx.run("spell", _itself, line))
        await ctx.sleep(0.01)
        return self.lines


async def _itself(line: str) -> str:
    return line


class Counter(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        return self.total


def runtime(path: Path, key: bytes | None) -> Runtime:
    return Runtime(f"sqlite:///{path}", [Diary], codec=None if key is None else AesGcmCodec(key))


async def test_no_value_is_in_the_files_in_plain_and_names_are(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, KEY) as app:
        write = app.object(Diary, "mary").write.options(idempotency_key="k", headers={"x-own": SECRET})
        assert await write(SECRET) == [SECRET]
        copy = shutil.copytree(tmp_path, tmp_path.with_name("copy"))
        files = b"".join(one.read_bytes() for one in sorted(copy.iterdir()))
        assert SECRET.encode() not in files
        assert b"mary" in files
        assert b"x-own" in files
    async with runtime(path, KEY) as app:
        assert await app.object(Diary, "mary").write("second") == [SECRET, "second"]
        assert await app.object(Diary, "mary").write.options(idempotency_key="k").attach() == [SECRET]


async def test_a_codec_with_another_key_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, KEY) as app:
        await app.object(Diary, "mary").write(SECRET)
    with pytest.raises(StoreUnavailableError, match="The codec cannot read the store"):
        await runtime(path, OTHER_KEY).__aenter__()
    async with runtime(path, KEY) as app:
        assert await app.object(Diary, "mary").write("x") == [SECRET, "x"]


async def test_a_store_in_plain_takes_a_codec_that_says_so_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, None) as app:
        await app.object(Diary, "mary").write("plain")
    with pytest.raises(StoreUnavailableError, match=r"written without a codec.*durably encrypt.*AcceptPlain"):
        await runtime(path, KEY).__aenter__()
    mixed = Runtime(f"sqlite:///{path}", [Diary], codec=AcceptPlain(AesGcmCodec(KEY)))
    async with mixed as app:
        assert await app.object(Diary, "mary").write(SECRET) == ["plain", SECRET]
    with pytest.raises(StoreUnavailableError, match="values in plain among the encoded ones"):
        await runtime(path, KEY).__aenter__()
    with pytest.raises(StoreUnavailableError, match="written with a codec, and there is none here"):
        await runtime(path, None).__aenter__()


async def test_a_runtime_without_the_codec_is_refused_when_it_opens_the_store(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, KEY):
        pass  # Nothing but the marker is in the store.
    with pytest.raises(StoreUnavailableError, match=r"Runtime\(codec=...\).*durably decrypt"):
        await runtime(path, None).__aenter__()
    reader = SqliteStore(path)
    await reader.open_read_only()
    with pytest.raises(StoreUnavailableError, match=r"Runtime\(codec=...\)"):
        await refuse_encoded(reader)
    await reader.close()
    store: Any = MemoryStore()
    async with Runtime(store, [Diary], codec=AesGcmCodec(KEY)):
        pass
    with pytest.raises(StoreUnavailableError, match=r"Runtime\(codec=...\)"):
        await Runtime(store, [Diary]).__aenter__()


@given(some.lists(some.sampled_from("abc"), min_size=1, max_size=5), some.sets(some.sampled_from("abc")))
def test_a_store_opens_exactly_with_all_keys_that_wrote_to_it(currents: list[str], given_keys: set[str]) -> None:
    """Keys rotate in any order, and a runtime that lacks one is refused by its name, not at the first value."""
    keys = {name: bytes([ord(name)]) * 32 for name in "abc"}
    current = currents[-1]
    disk = Disk()

    async def run() -> None:
        for number, one in enumerate(currents):
            async with Runtime(MemoryStore(disk), [Diary], codec=AesGcmCodec(keys, current=one)) as app:
                app.object(Diary, "mary")
                assert await app.object(Diary, f"{number}").write("x") == ["x"]
        held = {name: keys[name] for name in given_keys | {current}}
        last = Runtime(MemoryStore(disk), [Diary], codec=AesGcmCodec(held, current=current))
        missing = set(currents) - set(held)
        if missing:
            with pytest.raises(StoreUnavailableError, match="|".join(f"The key '{one}'" for one in missing)):
                await last.__aenter__()
            return
        async with last as app:
            for number in range(len(currents)):
                assert await app.object(Diary, f"{number}").write("y") == ["x", "y"]

    asyncio.run(run())


@given(
    some.lists(some.sampled_from(["x", "x#2", "x%232", "x#2#2", ""]), min_size=1, max_size=4),
    some.sets(some.sampled_from(["x", "x#2", "x%232", "x#2#2", ""])),
)
def test_keys_are_told_apart_whatever_their_ids_are(currents: list[str], given_keys: set[str]) -> None:
    keys = {id: bytes([number]) * 32 for number, id in enumerate(["x", "x#2", "x%232", "x#2#2", ""])}
    disk = Disk()

    async def run() -> None:
        for one in currents:
            async with Runtime(MemoryStore(disk), [Counter], codec=AesGcmCodec(keys, current=one)):
                pass
        held = {id: keys[id] for id in given_keys | {currents[-1]}}
        last = Runtime(MemoryStore(disk), [Counter], codec=AesGcmCodec(held, current=currents[-1]))
        missing = set(currents) - set(held)
        if missing:
            named = "|".join(re.escape(f"The key {one!r} has" if one else "which is not here") for one in missing)
            with pytest.raises(StoreUnavailableError, match=named):
                await last.__aenter__()
            return
        async with last:
            pass

    asyncio.run(run())


class Blob(VirtualObject):
    content: bytes = state(default=b"", serde=BytesSerde())

    @handler(accepts=BytesSerde(), returns=BytesSerde())
    async def put(self, ctx: ObjectContext, content: bytes) -> bytes:
        before, self.content = self.content, content
        return before

    @handler
    async def told(self, ctx: ObjectContext) -> str:
        return ctx.request.headers.get("x-own", "")


LOOKALIKES = [
    MARK + CompressionCodec().encode(b"forged"),
    MARK + AesGcmCodec(KEY).encode(b"forged"),
    MARK + b"\xff",
    MARK,
    b"",
    b"base64:AA==",
    b"plain",
]
HEADERS_LIKE_CODED = [f"{HEADER_MARK}{b64encode(value).decode()}" for value in LOOKALIKES]


def unheard(_stage: Stage, _done: int, _total: int) -> None:
    """Nobody watches."""


@pytest.mark.parametrize("codec", [CompressionCodec(), AesGcmCodec(KEY)])
async def test_plain_values_that_look_as_if_a_codec_had_written_them_are_read_as_they_are(
    codec: Codec, tmp_path: Path
) -> None:
    path = tmp_path / "app.db"
    headers = [*HEADERS_LIKE_CODED, f"{HEADER_MARK}aGVsbG8=", f"{HEADER_MARK}no base64", "plain"]

    def opened(codec: Codec | None) -> Harness:
        plain = SqliteStore(path)
        return Harness(Blob, store=plain if codec is None else EncodedStore(plain, codec))

    async with opened(None) as app:
        sent = [
            await app.object(Blob, "headers").told.options(headers={"x-own": value}).after(days=9).send()
            for value in headers
        ]
        for number, value in enumerate(LOOKALIKES):
            await app.object(Blob, f"{number}").put(value)
            await app.object(Blob, f"coded {number}").put(b"none yet")
    async with opened(AcceptPlain(codec)) as app:
        for number, value in enumerate(LOOKALIKES):
            assert (await app.state(Blob, f"{number}"))["content"] == value
            assert await app.object(Blob, f"coded {number}").put(value) == b"none yet"
    async with opened(AcceptPlain(codec)) as app:  # Now there are plain and coded ones beside each other.
        for number, value in enumerate(LOOKALIKES):
            assert await app.object(Blob, f"{number}").put(value) == value
            assert await app.object(Blob, f"coded {number}").put(value) == value
    recode(path, owner=OWNER, old=AcceptPlain(codec), new=codec, progressed=unheard)
    async with opened(codec) as app:
        for number, value in enumerate(LOOKALIKES):
            assert await app.object(Blob, f"coded {number}").put(b"") == value
        await app.advance(days=9, hours=1)
        assert [await app.invocation(one.id, str) for one in sent] == headers


@pytest.mark.parametrize("damaged", ["plain", "plain#2"])
@pytest.mark.parametrize(
    "note", ["base64:!", "durably", "durably 00 00000000", "durably 00112233445566778899aabbccddeeff 0"]
)
async def test_what_tells_plain_values_from_coded_ones_is_kept_twice(tmp_path: Path, damaged: str, note: str) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, None) as app:
        await app.object(Diary, "plain").write("x")

    def opened() -> Runtime:
        return Runtime(f"sqlite:///{path}", [Diary], codec=AcceptPlain(AesGcmCodec(KEY)))

    async with opened() as app:
        await app.object(Diary, "coded").write("x")

    def damage(field: str) -> None:
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("update state set value = ? where field = ?", [note, field]).rowcount == 1
            file.commit()

    damage(damaged)
    async with opened() as app:
        for key in ("plain", "coded"):
            assert await app.object(Diary, key).write("y") == ["x", "y"]
    damage("plain")
    damage("plain#2")
    with pytest.raises(
        StoreUnavailableError, match=r"values in plain among the encoded ones, and what tells them apart"
    ):
        await opened().__aenter__()


async def test_a_store_that_was_mixed_before_it_had_a_mark_of_its_own_is_read_as_then(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, KEY) as app:
        await app.object(Diary, "coded").write("x")
    with closing(sqlite3.connect(path)) as file:
        file.execute("insert into state values ('', 'durably', 'plain', 'durably')")
        file.execute("""insert into state values ('Diary', 'plain', 'lines', '["x"]')""")
        file.commit()
    async with Runtime(f"sqlite:///{path}", [Diary], codec=AcceptPlain(AesGcmCodec(KEY))) as app:
        for key in ("plain", "coded"):
            assert await app.object(Diary, key).write("y") == ["x", "y"]


async def test_where_no_value_is_in_plain_none_that_is_put_there_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    for codec in (AesGcmCodec(KEY), AcceptPlain(AesGcmCodec(KEY))):
        async with Runtime(f"sqlite:///{path}", [Diary], codec=codec) as app:
            await app.object(Diary, "mary").write("x")
    with closing(sqlite3.connect(path)) as file:
        file.execute("""update state set value = '["forged"]' where field = 'lines'""")
        file.commit()
    async with Runtime(f"sqlite:///{path}", [Diary], codec=AcceptPlain(AesGcmCodec(KEY))) as app:
        with pytest.raises(PausedInvocationError, match="in plain"):
            await app.object(Diary, "mary").write("y")


@pytest.mark.parametrize("damaged", ["codec", "codec#2"])
async def test_a_damaged_marker_does_not_lock_the_store(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, KEY) as app:
        await app.object(Diary, "mary").write("x")
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("update state set value = 'base64:!' where field = ?", [damaged]).rowcount == 1
        file.commit()
    async with runtime(path, KEY) as app:
        assert await app.object(Diary, "mary").write("y") == ["x", "y"]


async def test_a_plain_value_that_somebody_puts_among_encrypted_ones_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, KEY) as app:
        await app.object(Diary, "mary").write("x")
    with closing(sqlite3.connect(path)) as file:
        file.execute("""update state set value = '["forged"]' where field = 'lines'""")
        file.commit()
    async with runtime(path, KEY) as app:
        with pytest.raises(PausedInvocationError, match=r"The field 'lines' of Diary/mary cannot be read: .* in plain"):
            await app.object(Diary, "mary").write("y")


async def test_another_codec_that_reads_the_values_as_something_else_is_refused() -> None:
    class Shouting:
        def encode(self, data: bytes, /) -> bytes:
            return data

        def decode(self, data: bytes, /) -> bytes:
            return data.upper()

    store: Any = MemoryStore()
    async with Runtime(store, [Diary], codec=CompressionCodec()) as app:
        await app.object(Diary, "mary").write("x")
    with pytest.raises(StoreUnavailableError, match="another codec"):
        await Runtime(store, [Diary], codec=Shouting()).__aenter__()


class CountingCodec(AesGcmCodec):
    """Counts what it encodes."""

    def __init__(self, *, encodes_everything: bool) -> None:
        super().__init__(KEY)
        self.encodes_everything = encodes_everything
        self.encoded = 0

    @override
    def encode(self, data: bytes, /) -> bytes:
        self.encoded += 1
        return super().encode(data)


@pytest.mark.parametrize(("encodes_everything", "encoded"), [(True, 1), (False, 5)])
async def test_a_codec_that_refuses_nothing_encodes_only_what_is_stored(
    encodes_everything: bool, encoded: int, tmp_path: Path
) -> None:
    codec = CountingCodec(encodes_everything=encodes_everything)
    async with Runtime(f"sqlite:///{tmp_path}/a.db", [Counter], codec=codec) as app:
        counter = app.object(Counter, "a")
        await counter.add(1)
        before = codec.encoded
        await counter.add(1)
        assert codec.encoded - before == encoded


class Backwards:
    """Encodes, and decodes what it is told to."""

    def __init__(self, decoded: Callable[[bytes], Any]) -> None:
        self._decoded = decoded

    def encode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, /) -> Any:
        return self._decoded(data[::-1])


def nothing(_: bytes) -> None:
    return None


def refuse(_: bytes) -> bytes:
    raise SystemExit("no")


@pytest.mark.parametrize(
    ("decoded", "sentence"),
    [
        (bytes.decode, "gave str, not bytes"),
        (nothing, "gave NoneType, not bytes"),
        (bytearray, "gave bytearray, not bytes"),
        (bytes.upper, "as something else"),
        (refuse, "cannot decode what it has just encoded"),
    ],
)
async def test_a_codec_that_cannot_decode_what_it_encodes_writes_to_no_store(
    tmp_path: Path, decoded: Callable[[bytes], Any], sentence: str
) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    with pytest.raises(CodecError, match=sentence):
        async with Runtime(url, [Counter], codec=Backwards(decoded)):
            raise AssertionError("It was opened.")
    async with Runtime(url, [Counter], codec=codec()):  # Nothing was written.
        pass


async def test_a_value_that_a_codec_decodes_as_no_bytes_is_unreadable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with Runtime(url, [Counter], codec=Backwards(bytes)) as runtime:
        await runtime.object(Counter, "a").add(1)
    broken = Backwards(lambda data: data if data == b"durably" else bytearray(data))
    async with Runtime(url, [Counter], codec=broken) as runtime:
        with pytest.raises(PausedInvocationError, match="gave bytearray, not bytes"):
            await runtime.object(Counter, "a").add(1)


def test_a_class_of_codecs_is_no_codec_and_one_of_functions_is() -> None:
    given: Any
    for given in (AesGcmCodec, KEY):
        with pytest.raises(DefinitionError, match=r"such as AesGcmCodec\(key\), not a (type|bytes)\.$"):
            Runtime("sqlite:///app.db", [Counter], codec=given)
    assert is_codec(Functions)


class Functions:
    encode = staticmethod(bytes)
    decode = staticmethod(bytes)
