"""URLs name stores, and what is no URL of a store says how to write one."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.errors import DefinitionError
from durably.runtime.runtime import Runtime
from durably.storage.connect import path_in_url, store_from_url, store_given
from durably.storage.connections import Mode, database_uri
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore
from durably.testing.harness.harness import Harness
from tests.storage.conftest import NewStore
from tests.storage.samples import OWNER


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tickets.db", "tickets.db"),
        ("sqlite:///folder/my%20tickets.db", "folder/my tickets.db"),
        ("sqlite:////var/lib/tickets.db", "/var/lib/tickets.db"),
        ("sqlite:///./../tickets.db", "./../tickets.db"),
        ("sqlite:///my tickets #1.db", "my tickets #1.db"),
        ("sqlite:///what%3F.db", "what?.db"),
        ("sqlite:///100%.db", "100%.db"),
        ("sqlite:///100%25.db", "100%.db"),
        ("sqlite:///a%2520b.db", "a%20b.db"),
        ("sqlite:///caf%C3%A9.db", "café.db"),
        ("sqlite:///caf\u00e9.db", "café.db"),
        ("sqlite:///not-utf8%FF.db", os.fsdecode(b"not-utf8\xff.db")),
        ("sqlite:///./file:tickets.db", "file:tickets.db"),
    ],
)
def test_a_sqlite_url_names_a_file(url: str, path: str) -> None:
    store = store_from_url(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)


def test_memory_is_a_store_too() -> None:
    assert isinstance(store_from_url("memory:"), MemoryStore)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tickets.db",
        "sqlite://tickets.db",
        "sqlite:///",
        "mysql://db",
        "sqlite:///:memory:",
        "sqlite:///file:a.db",
    ],
)
def test_a_url_of_no_store_says_what_to_write(url: str) -> None:
    with pytest.raises(DefinitionError, match=r"sqlite:///tickets\.db|MemoryStore"):
        store_from_url(url)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite:///tickets.db?mode=ro", "write `%3F` if"),
        ("sqlite:////var/lib/", "names a folder"),
        ("sqlite:///a%00b.db", "NUL"),
        ("sqlite:///\ud800.db", "half a surrogate pair"),
        (None, r"by a URL, as text, such as `sqlite:///tickets\.db`, not by None \(NoneType\)"),
        (3, r"not by 3 \(int\)"),
    ],
)
def test_what_a_url_cannot_say_is_refused_with_the_way_out(url: Any, sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        store_from_url(url)


def test_a_runtime_is_given_a_store_a_url_or_a_path(tmp_path: Path) -> None:
    path = tmp_path / "100%20?.db"
    for given_store in (path, PathOfAnotherClass(str(path)), SqliteStore(path)):
        store = store_given(given_store)
        assert isinstance(store, SqliteStore)
        assert store.path == path
    for program in (Runtime(path, []), Harness(store=path)):
        assert str(path) in program.store
    runtime = Runtime("memory:", [])
    runtime.use_store(path)
    assert str(path) in runtime.store


class PathOfAnotherClass:
    """A path of a class that is not pathlib's."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


@pytest.mark.parametrize("no_store", [None, b"tickets.db", 3, {}, SqliteStore, object()])
def test_what_is_no_store_is_refused_with_what_to_give(no_store: Any) -> None:
    with pytest.raises(DefinitionError, match=r"is no store\. Give a URL such as `sqlite:///tickets\.db`"):
        Runtime(no_store, [])
    with pytest.raises(DefinitionError, match="is no store"):
        Runtime("memory:", []).use_store(no_store)
    if no_store is not None:  # Without one, a harness makes its own.
        with pytest.raises(DefinitionError, match="is no store"):
            Harness(store=no_store)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///C:/data/app.db", "C:/data/app.db"),
        ("sqlite:////C:/data/app.db", "C:/data/app.db"),
        ("sqlite:///C:\\data\\app.db", "C:\\data\\app.db"),
        ("sqlite:///data/app.db", "data/app.db"),
        ("sqlite:////data/app.db", "/data/app.db"),
        ("sqlite://///server/share/app.db", "//server/share/app.db"),
        ("sqlite:///C:/my%20data/app%23.db", "C:/my data/app#.db"),
    ],
)
def test_a_url_names_a_path_of_windows_too(url: str, path: str) -> None:
    assert path_in_url(url, windows=True) == path


def test_a_name_that_windows_cannot_have_is_told() -> None:
    with pytest.raises(DefinitionError, match="not UTF-8"):
        path_in_url("sqlite:///a%FF.db", windows=True)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_every_path_can_be_written_as_a_url(path: str) -> None:
    path = path.rstrip("/") or "x"
    assert path_in_url(f"sqlite:///{quote(path)}", windows=False) == path


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/data/50% #1?.db"), "file:///data/50%25%20%231%3F.db?mode=rw"),
        (PurePosixPath("//data/app.db"), "file:////data/app.db?mode=rw"),
        (PurePosixPath(os.fsdecode(b"/\xff.db")), "file:///%FF.db?mode=rw"),
        (PureWindowsPath(r"C:\data\app #1.db"), "file:///C:/data/app%20%231.db?mode=rw"),
        (PureWindowsPath(r"\\server\share\app.db"), "file:////server/share/app.db?mode=rw"),
    ],
)
def test_sqlite_is_told_a_path_to_the_letter(path: PurePosixPath | PureWindowsPath, uri: str) -> None:
    assert database_uri(path, Mode.EXISTING) == uri


@pytest.mark.parametrize(
    "name",
    ["50%.db", "50%20.db", "a#b.db", "a?mode=memory.db", "a b.db", "a&cache=shared.db", "café ☃.db", ":memory:.db"],
)
async def test_the_file_has_the_name_that_it_was_given(tmp_path: Path, new_store: NewStore, name: str) -> None:
    await new_store(tmp_path / name).open(OWNER)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        name + suffix for suffix in ("", "-shm", "-wal", ".lock")
    )
    reader = new_store(tmp_path / name)
    await reader.open_read_only()


@pytest.mark.parametrize("path", ["file:app.db", "sqlite:///app.db", "a\0b"])
def test_a_url_given_for_a_path_is_refused(path: str) -> None:
    with pytest.raises(DefinitionError, match=r"is a URL|NUL"):
        SqliteStore(path)


@pytest.mark.parametrize("url", ["mysql://mary:hunter2@db/x", "postgresql+psycopg://mary:hunter2@db/x"])
def test_a_password_is_not_repeated_where_a_url_is_refused(url: str) -> None:
    with pytest.raises(DefinitionError, match=r"mary:\*\*\*@db") as raised:
        store_from_url(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        " postgresql://mary:hunter2@db/x",
        "//mary:hunter2@db",
        "mary:hunter2@db/x",
        "postgresql:/mary:hunter2@db",
        "host=db password=hunter2",
        "sqlite://mary:hunter2@db/x",
        b"postgresql://mary:hunter2@db/x",
    ],
)
def test_a_password_is_not_repeated_where_it_is_almost_a_url(url: Any) -> None:
    with pytest.raises(DefinitionError, match=r"\*\*\*") as raised:
        store_given(url)
    assert "hunter2" not in str(raised.value)
    assert "sqlite:///mary" not in str(raised.value)
