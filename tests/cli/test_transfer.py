"""`durably export`, `import` and `backup`, beside a runtime and on a store that is stopped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from durably import ObjectContext, Runtime, VirtualObject, handler, state
from durably.cli.commands import run
from tests.cli.output_schemas import assert_fits
from tests.processes import PATIENCE_SECONDS, environment_with


class Cart(VirtualObject):
    items: list[str] = state(default_factory=list)

    @handler
    async def add(self, ctx: ObjectContext, item: str) -> list[str]:
        self.items.append(item)
        return self.items

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        await ctx.sleep(hours=1)


Told = tuple[int | str | None, str, str]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Runs the command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def told(*arguments: str) -> Told:
        monkeypatch.setattr("sys.argv", ["durably", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return told


def data(told: Told) -> Any:
    status, out, err = told
    assert (status, err) == (0, "")
    found = orjson.loads(out)
    assert_fits("backup", found)
    return found


async def test_a_store_in_use_is_backed_up_exported_and_imported_and_goes_on(
    command: Callable[..., Told], tmp_path: Path
) -> None:
    (tmp_path / "durably.toml").write_text("[store]\nurl = 'sqlite:///app.db'", "utf-8")
    async with Runtime("sqlite:///app.db", [Cart], drain=0) as app:
        await app.object(Cart, "mary").add("milk")
        await app.object(Cart, "ann").wait.send()
        backed_up = data(command("backup", "copy.db", "--json"))
        exported = data(command("export", "app.jsonl.gz", "--json"))
        await app.object(Cart, "mary").add("bread")
    assert backed_up == {**exported, "file": "copy.db"}
    assert exported["store"] == "sqlite:///app.db"
    assert exported["rows"]["state"] >= 1
    assert exported["rows"]["invocations"] == 1
    imported = data(command("import", "app.jsonl.gz", "--store", "sqlite:///new.db", "--json"))
    assert imported == {**exported, "store": "sqlite:///new.db"}
    for restored in ("copy.db", "new.db"):
        async with Runtime(f"sqlite:///{restored}", [Cart], drain=0) as app:
            assert await app.object(Cart, "mary").add("tea") == ["milk", "tea"]
            assert [str(one.description.target) async for one in app.invocations()] == ["Cart/ann/wait"]


async def test_people_are_told_what_was_compared_and_what_is_refused(
    command: Callable[..., Told], tmp_path: Path
) -> None:
    for name in ("backup", "export", "import"):
        status, out, err = command(name, "x")
        assert (status, out) == (1, "")
        assert "Nothing says which store. Name it: --store sqlite:///app.db" in err
        assert "is no file" in command(name, "x", "--store", "memory:")[2]
        assert (
            "'app.db' names no store, since it is no URL. Write `sqlite:///app.db`."
            in (command(name, "x", "--store", "app.db")[2])
        )
    async with Runtime("sqlite:///app.db", [Cart]) as app:
        await app.object(Cart, "mary").add("milk")
    status, out, err = command("export", "app.jsonl", "--store", "sqlite:///app.db")
    assert (status, err) == (0, "")
    assert "rows of sqlite:///app.db are in app.jsonl, read back and compared (SHA-256 of the rows: " in out
    assert "is a backup of sqlite:///app.db: " in command("backup", "copy.db", "--store", "sqlite:///app.db")[1]
    before = (tmp_path / "app.db").read_bytes()
    for name, file in (("import", "app.jsonl"), ("backup", "app.db"), ("export", "copy.db"), ("backup", "app.jsonl")):
        status, out, err = command(name, file, "--store", "sqlite:///app.db")
        assert (status, out) == (1, "")
        assert "is there already, and is left as it is" in err
    assert (tmp_path / "app.db").read_bytes() == before


NO_ROOM = [
    ("backup", "small/copy.db", "app.db", "The backup {folder}/small/copy.db cannot be written: the disk is full."),
    ("export", "small/app.jsonl", "app.db", "small/app.jsonl cannot be written: No space left on device. Free some"),
    ("export", "small/app.jsonl.gz", "app.db", "small/app.jsonl.gz cannot be written: No space left on device."),
    ("import", "app.jsonl", "small/app.db", "The store sqlite small/app.db was not made: the disk is full. Free some"),
]


@contextmanager
def no_file_larger_than(limit_bytes: int) -> Generator[None]:
    """As a disk without room, as far as the files of this process go."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
async def large_store(command: Callable[..., Told], tmp_path: Path) -> Path:
    """`app.db` and its export `app.jsonl`, beside an empty folder `small`."""
    async with Runtime("sqlite:///app.db", [Cart]) as app:
        await app.object(Cart, "mary").add("".join(f"{number:x}." for number in range(400_000)))
    data(command("export", "app.jsonl", "--store", "sqlite:///app.db", "--json"))
    (tmp_path / "small").mkdir()
    return tmp_path


@pytest.mark.parametrize(("name", "file", "store"), [one[:3] for one in NO_ROOM])
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    command: Callable[..., Told], large_store: Path, name: str, file: str, store: str
) -> None:
    with no_file_larger_than(200_000):
        status, out, err = command(name, file, "--store", f"sqlite:///{store}")
    assert (status, out) == (1, "")
    assert "File too large" in err or "`ulimit -f`" in err
    assert {one.name for one in (large_store / "small").iterdir()} <= {"app.db.lock"}
    assert command(name, file, "--store", f"sqlite:///{store}")[0] == 0, "nothing stands in the way of the next try"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file", "store", "said"), NO_ROOM)
def test_a_full_disk_is_told_and_nothing_half_done_is_left(
    large_store: Path, name: str, file: str, store: str, said: str
) -> None:
    script = (
        'mount -t tmpfs -o size=200k small small || exit 77\n"$@"\nstatus=$?\nls small | grep -v lock\nexit $status\n'
    )
    command = [sys.executable, "-m", "durably.cli", name, file, "--store", f"sqlite:///{store}"]
    try:
        told = subprocess.run(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *command], check=False,
            env=environment_with({}), capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("There is no unshare here.")
    if told.returncode == 77 or "unshare" in told.stderr:
        pytest.skip(f"No file system can be mounted here: {told.stderr}")
    assert (told.returncode, told.stdout) == (1, "")
    assert said.format(folder=large_store) in told.stderr
    assert "Traceback" not in told.stderr
