from __future__ import annotations

import pytest

from durably.cli.tables import print_table


def test_columns_are_aligned_and_a_row_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["KEY", "VALUE"], [("ä", "1"), ("日本", "a\nb\x1b[31m"), ("long one", "")])
    assert capsys.readouterr().out.splitlines() == [
        "KEY       VALUE",
        "ä         1",
        "日本      a\\nb\\x1b[31m",
        "long one",
    ]
