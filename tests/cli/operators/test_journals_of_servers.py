"""`durably debug` and `durably export-test` ask a server for the journal: of a store elsewhere, or in PostgreSQL."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from durably.bearer_tokens import BearerTokens
from durably.codecs import AesGcmCodec, Codec
from durably.testing.replaying import read_journals
from tests.cli.operators.conftest import Command, Site, served
from tests.postgres import running_postgres

PROGRAM = """
from durably import Runtime
from durably.codecs import AesGcmCodec
from tests.cli.operators.conftest import Counter, Mailer

runtime = Runtime("memory:", [Counter, Mailer])
keyed = Runtime("memory:", [Counter, Mailer], codec=AesGcmCodec(bytes(32)))
other = Runtime("memory:", [Counter, Mailer], codec=AesGcmCodec(bytes([1] * 32)))
"""
MODULE = "program_of_journals"
KEYED: Codec = AesGcmCodec(bytes(32))


@pytest.fixture(autouse=True)
def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MODULE}.py").write_text(PROGRAM, "utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, MODULE, raising=False)


def assert_replayed_here(site: Site, command: Command, *options: str, attribute: str = "runtime") -> None:
    """Both commands have the journal of what waits there, with its argument, headers, state and steps."""
    unique = uuid4().hex
    site.post(f"/Counter/odd%2Fk%C3%A9y%0A{unique}/add", 7)
    id = site.send(f"/Counter/odd%2Fk%C3%A9y%0A{unique}/wait")
    site.until(id, "suspended")
    told = command("debug", id, f"{MODULE}:{attribute}", *options, "--no-pdb")
    assert (told.status, told.out) == (0, "")
    assert "wait follows its 1 recorded step, and waits for what these lines asked for" in told.err
    made = command("export-test", id, f"{MODULE}:{attribute}", *options, "--output", f"tests-{id}", "--json").data
    (journal,) = read_journals(made["journal"])
    assert (journal.id, journal.key, dict(journal.snapshot)) == (id, f"odd/kéy\n{unique}", {"count": b"7"})


def test_a_server_is_asked_for_a_journal(site: Site, command: Command) -> None:
    assert_replayed_here(site, command, "--admin", site.admin)


def test_what_the_configuration_says_leads_to_the_server(site: Site, command: Command) -> None:
    Path("durably.toml").write_text(f"[admin]\nurl = '{site.admin}'\n[store]\nurl = 'postgresql://db/x'\n", "utf-8")
    assert_replayed_here(site, command)


@pytest.mark.slow
def test_the_journal_of_a_store_in_postgresql(tmp_path: Path, command: Command) -> None:
    with running_postgres() as postgres, served(tmp_path, store=postgres.new_url()) as site:
        assert_replayed_here(site, command, "--admin", site.admin)


def test_only_who_has_the_key_reads_an_encoded_journal(tmp_path: Path, command: Command) -> None:
    with served(tmp_path, codec=KEYED) as site:
        assert_replayed_here(site, command, "--admin", site.admin, attribute="keyed")
        id = site.send("/Mailer/send", "a secret")
        site.until(id, "completed")
        waiting = site.send("/Counter/ann/wait")
        site.until(waiting, "suspended")
        answer = httpx.get(f"{site.admin}/invocations/{waiting}/journal")
        assert (answer.status_code, b"Counter" in answer.content) == (200, False)
        for attribute, sentence in (("runtime", "has no codec"), ("other", "cannot be decoded")):
            told = command("debug", waiting, f"{MODULE}:{attribute}", "--admin", site.admin, "--no-pdb")
            assert (told.status, told.out) == (1, "")
            assert sentence in told.err


def test_there_is_no_journal(site: Site, command: Command) -> None:
    for id in ("inv_1nothing", "no/such thing", "..", "é\n"):
        for name in ("debug", "export-test"):
            told = command(name, id, f"{MODULE}:runtime", "--admin", site.admin)
            assert (told.status, told.out) == (1, "")
            assert told.err.strip()
    assert "There is no journal of inv_1nothing" in httpx.get(f"{site.admin}/invocations/inv_1nothing/journal").text


def test_a_journal_is_behind_the_token(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path, lambda admin: BearerTokens(admin, ["hush"], open_paths={"/health"})) as site:
        id = site.send("/Counter/ann/wait")
        for token, sentence in (("other", "yours is wrong"), (None, "yours is missing")):
            if token is None:
                monkeypatch.delenv("DURABLY_ADMIN_TOKEN")
            else:
                monkeypatch.setenv("DURABLY_ADMIN_TOKEN", token)
            told = command("debug", id, f"{MODULE}:runtime", "--admin", site.admin, "--no-pdb")
            assert (told.status, sentence in told.err) == (1, True)
        assert httpx.get(f"{site.admin}/invocations/{id}/journal").status_code == 401
        monkeypatch.setenv("DURABLY_ADMIN_TOKEN", "hush")
        assert command("debug", id, f"{MODULE}:runtime", "--admin", site.admin, "--no-pdb").status == 0


def test_a_journal_that_is_too_large_is_not_sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.admin.app.JOURNAL_LIMIT_BYTES", 10)
    id = site.send("/Counter/large/wait")
    answer = httpx.get(f"{site.admin}/invocations/{id}/journal")
    assert (answer.status_code, "and at most 10 are sent" in answer.json()["message"]) == (413, True)
