"""`durably encrypt`, `durably decrypt`, and `export-journals --codec`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably import Context, Runtime, Service, handler
from durably.cli.export_journals import export
from durably.cli.failures import CommandError
from durably.cli.loading import load_codec
from durably.cli.operators.output import Format
from durably.cli.recode import decrypt, encrypt
from durably.codecs import AesGcmCodec, CompressionCodec
from tests.cli.output_schemas import assert_fits
from tests.processes import durably

SECRET = "the-secret-of-mary"
URL = "sqlite:///app.db"
MODULE = f"""
from durably.codecs import AcceptPlain, AesGcmCodec, CompressionCodec

codec = AesGcmCodec({{"old": {bytes(32)!r}}})
both = AesGcmCodec({{"old": {bytes(32)!r}, "new": {bytes(range(32))!r}}}, current="new")
accepting = AcceptPlain(codec)
number = 7

def compression():
    return CompressionCodec()
"""


class Sleeper(Service):
    @handler
    async def sleep(self, ctx: Context, word: str) -> None:
        await ctx.sleep(hours=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module of codecs in it."""
    (tmp_path / "codecs_of_this_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("codecs_of_this_test", None)


async def fill() -> None:
    async with Runtime(URL, [Sleeper]) as app:
        await app.service(Sleeper).sleep.send(SECRET)


async def test_a_store_is_encrypted_gets_another_key_and_is_decrypted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill()

    def is_readable() -> bool:
        return SECRET.encode() in b"".join(one.read_bytes() for one in folder.iterdir() if one.suffix != ".py")

    encrypt(URL, "codecs_of_this_test:codec", old_codec=None, format=Format.JSON)
    told = json.loads(capsys.readouterr().out)
    assert_fits("encrypt", told)
    assert told == {"store": URL, "values": told["values"], "bytes": told["bytes"]}
    assert told["values"] >= 2
    assert not is_readable()
    encrypt(URL, "codecs_of_this_test:both", old_codec=None, format=Format.TABLE)
    assert "values of" in (said := capsys.readouterr().out)
    assert f"in {URL} were written with codecs_of_this_test:both, read back and compared." in said
    with pytest.raises(CommandError, match="key 'new'"):
        decrypt(URL, "codecs_of_this_test:codec", format=Format.TABLE)
    encrypt(URL, "codecs_of_this_test:compression", old_codec="codecs_of_this_test:both", format=Format.TABLE)
    decrypt(URL, "codecs_of_this_test:compression", format=Format.TABLE)
    assert is_readable()


async def test_the_codec_of_a_program_that_accepts_plain_values_encrypts_and_decrypts_its_store(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accepting = "codecs_of_this_test:accepting"
    await fill()
    async with Runtime(URL, [Sleeper], codec=load_codec(accepting)) as app:
        await app.service(Sleeper).sleep.send("new")
    encrypt(URL, accepting, old_codec=None, format=Format.TABLE)
    assert SECRET.encode() not in (folder / "app.db").read_bytes()
    async with Runtime(URL, [Sleeper], codec=load_codec("codecs_of_this_test:codec")) as app:
        await app.service(Sleeper).sleep.send("newest")
    decrypt(URL, accepting, format=Format.TABLE)
    assert SECRET.encode() in (folder / "app.db").read_bytes()


async def test_journals_of_an_encrypted_store_are_exported_with_its_codec(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    await fill()
    encrypt(URL, "codecs_of_this_test:codec", old_codec=None, format=Format.TABLE)
    with pytest.raises(CommandError, match="--codec module:attribute"):
        await asyncio.to_thread(export, URL, folder / "journals", target=None, limit=None, format=Format.TABLE)
    codec = "codecs_of_this_test:codec"
    await asyncio.to_thread(export, URL, folder / "journals", target=None, limit=None, format=Format.JSON, codec=codec)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["journals"] == 1
    assert SECRET in next((folder / "journals").iterdir()).read_text()


def test_what_names_no_codec_is_refused_in_a_sentence(folder: Path) -> None:
    assert isinstance(load_codec("codecs_of_this_test:codec"), AesGcmCodec)
    assert isinstance(load_codec("codecs_of_this_test:compression"), CompressionCodec)
    for target, sentence in {
        "codecs_of_this_test:number": "of type int, not a codec",
        "codecs_of_this_test": "does not name a codec",
        "codecs_of_this_test:nothing": "has no 'nothing'. It has this codec: codecs_of_this_test:",
    }.items():
        with pytest.raises(CommandError, match=sentence):
            load_codec(target)
    with pytest.raises(CommandError, match="is no file"):
        encrypt("memory:", "codecs_of_this_test:codec", old_codec=None, format=Format.TABLE)


@pytest.mark.slow
async def test_the_commands_do_the_same(folder: Path) -> None:
    await fill()
    done = durably("encrypt", "--store", URL, "--codec", "codecs_of_this_test:codec", "--json", cwd=folder)
    assert (done.returncode, json.loads(done.stdout)["store"]) == (0, URL)
    refused = durably("decrypt", "--store", URL, "--codec", "codecs_of_this_test:number", cwd=folder)
    assert (refused.returncode, "not a codec" in refused.stderr) == (1, True)
    assert durably("decrypt", "--store", URL, "--codec", "codecs_of_this_test:codec", cwd=folder).returncode == 0
