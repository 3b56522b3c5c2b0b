from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from durably.cli import demo
from durably.cli.failures import CommandError
from tests.processes import durably

pytestmark = pytest.mark.slow


def test_the_demo_shows_one_payment_across_a_crash_and_keeps_its_files(tmp_path: Path) -> None:
    ended = durably("demo", "--keep", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for line in (
        "the connection broke",
        "requests that the provider got: 2",
        "payments that it made: 1",
        "All of it held.",
    ):
        assert line in ended.stdout
    assert len(set(re.findall(r"process (\d+) listens", ended.stdout))) == 2
    assert float(re.findall(r"\(([\d.]+) s\)", ended.stdout)[-1]) < 20
    assert (tmp_path / "durably-demo" / "tickets.db").exists()
    again = durably("demo", "--keep", cwd=tmp_path)
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_what_is_not_as_promised_ends_the_demo_with_a_sentence(tmp_path: Path) -> None:
    show = demo.Show(Console(quiet=True), tmp_path)
    with pytest.raises(CommandError, match="payments that it made: 2, but it should be 1"):
        show.expect("payments that it made", 2, 1)
