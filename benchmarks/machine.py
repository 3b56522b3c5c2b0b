"""The facts about a machine without which figures mean nothing, among them what one fsync and a little Python take."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

FSYNCS = 100
FSYNC_BYTES = 4096
LOOPS = 5
MOUNTS = Path("/proc/mounts")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run took place."""

    system: str
    cores: int
    python: str
    sqlite: str
    uvloop: str | None
    file_system: str
    """Of the folder that the databases are in."""
    fsync_us: float
    """Median of writing a page to a file and making it durable."""
    python_loop_ms: float
    """Best of counting to a million in Python: how fast a core is, and whether two runs had the same one."""


def look_at_machine(folder: Path) -> Machine:
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cores=_cores(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        uvloop=_version_of("uvloop"),
        file_system=file_system_of(folder),
        fsync_us=_fsync_us(folder),
        python_loop_ms=min(_loop_ms() for _ in range(LOOPS)),
    )


def file_system_of(folder: Path) -> str:
    """The type of file system that a folder is on, where the system tells."""
    if not MOUNTS.exists():
        return "unknown"
    found = ("", "unknown")
    for line in MOUNTS.read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if folder.resolve().is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _fsync_us(folder: Path) -> float:
    page = os.urandom(FSYNC_BYTES)
    seconds: list[float] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(FSYNCS):
            began = perf_counter()
            file.write(page)
            os.fsync(file.fileno())
            seconds.append(perf_counter() - began)
    return median(seconds) * 1_000_000


def _loop_ms() -> float:
    began = perf_counter()
    for _ in range(1_000_000):
        pass
    return (perf_counter() - began) * 1000
