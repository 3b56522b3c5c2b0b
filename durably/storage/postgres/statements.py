"""The named statements for PostgreSQL, and the layout, read once from the `.sql` files beside this module."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from durably.storage.statements import parse_statements

FILES: Final = ("owner.sql", "commit.sql", "reads.sql", "move.sql")
LAYOUT_VERSION: Final = 1
MOVING_VERSION: Final = 0
"""Of a store that is not whole yet."""
INLINE_BYTES: Final = 1 << 20
"""Payloads beyond this have their size in an answer, and are read by themselves."""

_FOLDER: Final = files("durably.storage.postgres").joinpath("sql")


def load_statements() -> dict[str, bytes]:
    """All statements of all files, by name."""
    found: dict[str, bytes] = {}
    for name in FILES:
        for statement in parse_statements(_FOLDER.joinpath(name).read_text(encoding="utf-8")):
            assert statement.name not in found, f"two statements are called {statement.name}"
            found[statement.name] = statement.sql.encode()
    return found


def layout() -> bytes:
    """The script that makes the tables of a store in a schema that has none."""
    script = _FOLDER.joinpath("layout.sql").read_text(encoding="utf-8")
    return script.replace("%INLINE_BYTES%", str(INLINE_BYTES)).encode()


STATEMENTS: Final = load_statements()
