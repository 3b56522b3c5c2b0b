"""The .proto files of these tests, compiled as a user compiles them, and imported: `shop` and `strict`."""

from __future__ import annotations

import atexit
import importlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]


def protoc(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run the compiler in a folder; its complaints, empty if it has none."""
    done = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or done.stderr
    return done.stderr


def _imported(*names: str) -> list[Any]:
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    complaints = protoc(f"-I{HERE}", f"--python_out={folder.name}", *(f"{name}.proto" for name in names), cwd=HERE)
    assert complaints == ""
    sys.path.insert(0, folder.name)
    return [importlib.import_module(f"{name}_pb2") for name in names]


shop, strict = _imported("shop", "strict")

if TYPE_CHECKING:
    from google.protobuf.message import Message

    class Ticket(Message): ...

    class Order(Message): ...
else:
    Ticket, Order = shop.Ticket, strict.Order
