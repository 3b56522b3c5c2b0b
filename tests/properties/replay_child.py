"""Replays journals that another process has written: `python -m tests.properties.replay_child FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from durably.runtime.execution.step import decode_step
from tests.properties.asyncio_programs import Machine
from tests.properties.journals import Driver, Journal


def main(path: Path) -> None:
    driver = Driver(Machine)
    journals = steps = 0
    with path.open("rb") as file:
        for line in file:
            journal = msgspec.json.decode(line, type=Journal)
            driver.replayed(journal, [decode_step(content) for content in journal.steps]).close()
            journals += 1
            steps += len(journal.steps)
    print(f"replayed {journals} journals, {steps} steps")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
