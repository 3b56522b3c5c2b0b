"""`EncodedStore` keeps the contract of stores, lets no value through in plain, and knows its codec again (rule V8)."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from durably import ObjectContext, Runtime, StoreUnavailableError, VirtualObject, handler, state
from durably.codecs import AesGcmCodec, Codec, CodecChain, CompressionCodec
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore
from durably.testing.stores.contract import StoreContract
from tests.levels import level

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
SECRET = "the-secret-of-mary"


def codec() -> Codec:
    return CodecChain(CompressionCodec(), AesGcmCodec(KEY))


class TestEncodedStore(StoreContract):
    examples = level().examples

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


async def test_a_store_may_get_a_codec_later(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with runtime(path, None) as app:
        await app.object(Diary, "mary").write("plain")
    async with runtime(path, KEY) as app:
        assert await app.object(Diary, "mary").write(SECRET) == ["plain", SECRET]


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
