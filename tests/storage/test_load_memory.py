"""A journal of large answers is loaded with memory for a small multiple of its bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, environment_with

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, resource, sys
from durably import Context, Runtime, Service, handler

ANSWERS, BYTES = 50, 2_000_000

def page(number: int) -> str:
    return chr(97 + number % 26) * BYTES

class Collector(Service):
    @handler
    async def collect(self, ctx: Context) -> int:
        total = 0
        for number in range(ANSWERS):
            total += len(await ctx.run(f"page {number}", page, number))
        await ctx.sleep(float(sys.argv[2]))
        return total

def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

async def main() -> None:
    before = peak_bytes()
    async with Runtime(sys.argv[1], [Collector], drain=0.1) as runtime:
        if sys.argv[3] == "begin":
            sent = await runtime.service(Collector).collect.send()
            while not [one async for one in runtime.invocations(status="suspended")]:
                await asyncio.sleep(0.05)
            print(sent.id)
        else:
            total = await runtime.invocation(sys.argv[3], int).result()
            print(total, (peak_bytes() - before) / (ANSWERS * BYTES))

asyncio.run(main())
"""


def test_memory_for_a_load_is_a_small_multiple_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    url = f"sqlite:///{tmp_path}/app.db"

    def run(*arguments: str) -> str:
        command = [sys.executable, "program.py", url, "1", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment_with({"PYTHONPATH": str(ROOT)}), capture_output=True, text=True,
            check=True,
        ).stdout  # fmt: skip

    total, times = run(run("begin").strip()).split()
    assert int(total) == 50 * 2_000_000
    assert float(times) < 4
