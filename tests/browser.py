"""A real Chromium without a window, driven over a pipe by its own protocol (CDP), so that no driver is needed."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.processes import PATIENCE_SECONDS

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHOUT_ONE: Final = "no Chromium is installed on this machine"


class Page:
    """One page of a browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = open(answers, "rb", buffering=0, closefd=False)  # noqa: SIM115
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def open(self, url: str, *, width: int = 900, height: int = 700) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._ask("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression, or of the promise that it gives."""
        answer = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"{script} never came true:\n{self.evaluate('document.body.innerText')}"
            time.sleep(0.02)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, msgspec.json.encode(command) + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._answers.read(65_536)
            assert part, "Chromium has ended"
            self._rest += part
        answer, _, self._rest = self._rest.partition(b"\0")
        decoded: dict[str, Any] = msgspec.json.decode(answer)
        return decoded


@contextmanager
def browser(profile: Path) -> Generator[Page]:
    """A browser with a profile of its own, and its only page."""
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    # It reads commands from descriptor 3 and answers on 4, which the shell makes of the two that it inherits.
    script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", CHROMIUM, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        os.close(commands)
        os.close(answers)
