"""docs/tutorial.md tells the truth: its programs are served as they stand, and every line that it has typed prints what
it says.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE_SECONDS, ROOT, ServerProcess, environment_with, eventually
from tests.restate_command import RestateCommand, installed

PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)( eventually)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVE = "durably serve tour:runtime"
KILL = 'pkill -9 -f "serve tour:runtime"'
NPX = "npx @restatedev/restate@1.7 "

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for curl, which is not installed"),
]


class Reader:
    """Who has typed what the page says, in a folder."""

    def __init__(self, folder: Path, restate: RestateCommand) -> None:
        self.folder = folder
        self.restate = restate
        self.server: ServerProcess | None = None
        self.last_id = ""

    def write(self, block: str) -> None:
        """`tour.py`, or what has changed in it: the lines from the first to the last of the block."""
        title, _, code = block.partition("\n")
        file = self.folder / "tour.py"
        if title.count(",") > 1:
            first, *_, last = lines = code.splitlines()
            before, _, rest = file.read_text().partition(first + "\n")
            assert rest, title
            _, _, after = rest.partition(last + "\n")
            code = before + "\n".join(lines) + "\n" + after
        file.write_text(code)

    def type(self, command: str) -> str:
        if command == SERVE:
            self._serve()
            return self.output
        if command == KILL:
            self._served().kill()
            return ""
        command = command.replace("inv_1…", self.last_id)
        if command.startswith(NPX):
            return self.restate.run(
                *shlex.split(command.removeprefix(NPX)), ingress=self._served().url, admin=self._served().admin_url
            )
        printed = self._run(command)
        if found := re.search(r'"invocationId":"(\w+)"', printed):
            self.last_id = found[1]
        return printed

    @property
    def output(self) -> str:
        """What the server has printed that is up."""
        return self._served().output

    def end(self) -> None:
        if self.server is not None:
            self.server.end()

    def _run(self, command: str) -> str:
        port, admin_port = self._served().port, self._served().admin_url.rpartition(":")[2]
        command = command.replace(":8080", f":{port}").replace(":9070", f":{admin_port}")
        command = command.replace("curl ", "curl --silent --show-error ", 1)
        command = re.sub(r"^durably ", f"{shlex.quote(sys.executable)} -m durably.cli ", command)
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder, env=environment_with({"COLUMNS": "200"}), capture_output=True, text=True, check=False,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def _serve(self) -> None:
        if self.server is not None and self.server.process.poll() is None:
            assert self.server.stop() == 0
        command = [sys.executable, "-m", "durably.cli", "serve", "tour:runtime", "--port", "0", "--admin-port", "0"]
        self.server = ServerProcess(command, cwd=self.folder, environment={})

    def _served(self) -> ServerProcess:
        assert self.server is not None
        return self.server


def is_as_told(command: str, printed: str, told: str) -> bool:
    """What is printed is what the page shows, where `…` stands for anything. Of what is not the answer to a request,
    the page may leave lines out.
    """
    told = told.replace("http://127.0.0.1:8080", "http://127.0.0.1:…")
    lines = [".*?".join(map(re.escape, line.strip().split("…"))) for line in told.strip().splitlines()]
    if command.startswith("curl "):
        return re.fullmatch("\n".join(lines), printed.strip(), re.DOTALL) is not None
    return re.search("(?s:.*?)".join(lines), printed) is not None


def commands(block: str) -> Iterator[tuple[str, str]]:
    """What is typed, and what is printed then."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, told = part.partition("\n")
        yield command, told


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    npm, here = tmp_path / "npm", tmp_path / "here"
    npm.mkdir()
    here.mkdir()
    reader = Reader(here, RestateCommand(installed(npm), tmp_path))
    yield reader
    reader.end()


def test_who_types_what_the_page_says_sees_what_it_says(reader: Reader) -> None:
    typed = 0
    for language, is_patient, block in FENCE.findall(PAGE):
        if language == "python":
            reader.write(block)
            continue
        assert language == "console"
        for command, told in commands(block):
            printed = ""

            def fits(command: str = command, told: str = told) -> bool:
                nonlocal printed
                printed = reader.type(command)
                return is_as_told(command, printed, told)

            assert eventually(fits) if is_patient else fits(), f"{command}\n{printed}\nThe page says:\n{told}"
            typed += 1
    assert typed > 30
    for line in ("80 dollars were paid\n", "Mail to Ann: Enjoy the show.\n"):
        assert reader.output.count(line) == 1
