"""A full disk below stdout ends a command without a traceback."""

from __future__ import annotations

import sys

import pytest

from durably.cli.commands import run


def status_of_config_show(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("DURABLY_SERVER_PORT", "1")
    monkeypatch.setattr("sys.argv", ["durably", "config", "show"])
    with pytest.raises(SystemExit) as ended:
        run()
    return ended.value.code


def test_a_full_disk_below_the_output_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert status_of_config_show(monkeypatch) == 1
    assert "could not be written: No space left on device. Free some space." in capsys.readouterr().err
