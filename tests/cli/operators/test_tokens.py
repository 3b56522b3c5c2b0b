"""The commands bring the token that the configuration names; without it they say what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from durably.bearer_tokens import BearerTokens
from durably.cli.failures import CommandError
from durably.cli.serve import serve, serving
from durably.configuration import load_configuration
from tests.cli.operators.conftest import Command, served


def test_operators_need_the_token_of_the_admin_port(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    with served(tmp_path / "store", guard=lambda admin: BearerTokens(admin, ["hush"])) as found:
        missing = command("services", "list", "--admin", found.admin)
        assert (missing.status, missing.out) == (1, "")
        assert "yours is missing. Set DURABLY_ADMIN_TOKEN" in missing.err
        monkeypatch.setenv("DURABLY_ADMIN_TOKEN", "loud")
        wrong = command("services", "list", "--admin", found.admin)
        assert "yours is wrong" in wrong.err
        assert "loud" not in wrong.err
        monkeypatch.setenv("DURABLY_ADMIN_TOKEN", "hush")
        assert len(command("services", "list", "--admin", found.admin, "--json").data) == 2
    store = (tmp_path / "store" / "app.db").read_bytes()
    assert b"hush" not in store


def test_no_proxy_of_the_environment_hears_the_token(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLY_ADMIN_TOKEN", "hush")
    with served(tmp_path) as found:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")  # Where nothing listens.
        assert len(command("services", "list", "--admin", found.admin, "--json").data) == 2


def test_no_password_in_a_url_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_STORE_URL", "postgresql://ann:hush@127.0.0.1:9/db")
    monkeypatch.setenv("DURABLY_ADMIN_URL", "http://ann:hush@127.0.0.1:9")
    told = command("invocations", "list")
    assert told.status == 1
    assert "hush" not in told.err
    assert "http://ann:***@127.0.0.1:9" in told.err


APPLICATION = "from durably import Runtime\nruntime = Runtime('memory:', [])"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_the_loopback_interface_operators_need_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "guarded_application.py").write_text(APPLICATION, "utf-8")
    (tmp_path / "durably.toml").write_text(f"[admin]\nhost = '{host}'\nport = 0", "utf-8")
    what = serving(
        load_configuration(environ={}), target="guarded_application:runtime", host=None, port=None, admin_port=None,
        store=None, server=None, tracing_endpoint=None,
    )  # fmt: skip
    with pytest.raises(CommandError, match="would be open to others"):
        serve(what)
