"""A real process under load is killed with SIGKILL at random moments, and started again on what it left behind.

What it had acknowledged is there, nothing is there twice, everything that was accepted comes to its end, and the ledger
outside shows only the repeats that are allowed: of side effects that nothing had followed yet (rule A2).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from threading import Timer
from typing import IO, Any

from tests.crashes.app import CHAIN
from tests.crashes.load import CLIENTS, SEATS_PER_ROUND, diary_of, read_answers
from tests.levels import level
from tests.processes import PATIENCE_SECONDS, ROOT, environment_with

LONGEST_LIFE_SECONDS = 0.5
UNFINISHED_ROUNDS = 1_000_000
ALLOWED_BEFORE = {"second": {"first"}, "left": {"second"}, "right": {"second"}, "last": {"left", "right"}}
"""What of a chain must have ended when this one starts."""


class Child:
    """One run of the process, until it is killed or done."""

    def __init__(self, folder: Path, run: int, rounds: int, store: str | None) -> None:
        self.log = folder / f"stderr{run}"
        self._stderr = self.log.open("w")
        environment = environment_with({} if store is None else {"STORE": store})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashes.load", str(folder), str(run), str(rounds)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=self._stderr, text=True,
        )  # fmt: skip

    def wait_for(self, word: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it says so."""
        impatience = Timer(seconds, self._process.kill)
        impatience.start()
        line = self._stdout.readline()
        impatience.cancel()
        if line != f"{word}\n":
            self.kill()
            raise AssertionError(f"It said {line!r} and not {word!r}:\n{self.log.read_text()}")

    def kill(self) -> None:
        """As `kill -9` does."""
        self._process.kill()
        self._end()

    def end(self) -> None:
        assert self._end() == 0, self.log.read_text()

    def kill_while_running(self) -> None:
        """The same, and it must not have ended by itself."""
        assert self._process.poll() is None, self.log.read_text()
        self.kill()

    @property
    def _stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _end(self) -> int:
        status = self._process.wait(PATIENCE_SECONDS)
        self._stdout.close()
        self._stderr.close()
        return status


def test_nothing_that_was_acknowledged_is_lost_or_done_twice(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, level().kills)


def kill_again_and_again(tmp_path: Path, kills: int, store: str | None = None) -> None:
    """On the store of this URL; else on a file."""
    random = Random(25)
    for run in range(kills):
        child = Child(tmp_path, run, UNFINISHED_ROUNDS, store)
        if random.random() < 0.8:
            child.wait_for("ready")
        else:  # Perhaps while it starts, recovers, or has not even opened its store.
            time.sleep(random.random() * 0.3)
        time.sleep(random.random() * LONGEST_LIFE_SECONDS)
        child.kill_while_running()
    rounds = 1 + max((int(key.split(".")[1]) for key in read_answers(tmp_path / "acknowledged")), default=0)
    last = Child(tmp_path, kills, rounds, store)
    last.wait_for("ready")
    last.wait_for("done", PATIENCE_SECONDS * 3)
    last.end()
    answers: dict[str, Any] = {key: json.loads(line) for key, line in read_answers(tmp_path / "acknowledged").items()}
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    ledger = [line.split(" ") for line in (tmp_path / "ledger").read_text().splitlines()]
    assert len(answers) == CLIENTS * rounds * 5
    check_seats(answers, found["seats"], rounds)
    check_payments(answers, ledger, rounds, kills)
    check_chains(answers, ledger, rounds)
    check_diaries(found["diaries"], rounds)


def check_seats(answers: dict[str, Any], seats: dict[str, str], rounds: int) -> None:
    """No seat has two owners, and every seat that somebody has is sold: each round ends with a checkout."""
    owners: Counter[str] = Counter()
    asked: set[str] = set()
    for client in range(CLIENTS):
        for round in range(rounds):
            for name, seat in (("add1", client), ("add2", client * 3 + 1)):
                seat_name = f"r{round}s{seat % SEATS_PER_ROUND}"
                asked.add(seat_name)
                owners[seat_name] += answers[f"{client}.{round}.{name}"]
    assert {seat: owners[seat] for seat in asked} == dict.fromkeys(asked, 1)
    assert {seat for seat, status in seats.items() if status == "Sold"} == asked
    assert {status for seat, status in seats.items() if seat not in asked} <= {"Available"}


def check_payments(answers: dict[str, Any], ledger: list[list[str]], rounds: int, kills: int) -> None:
    """Each checkout of a cart that held something was paid for once, and again only where a kill came in between."""
    paid: Counter[str] = Counter()
    for client in range(CLIENTS):
        for round in range(rounds):
            prefix = f"{client}.{round}"
            assert answers[f"{prefix}.checkout"] == (answers[f"{prefix}.add1"] or answers[f"{prefix}.add2"])
            paid[f"user{client}"] += answers[f"{prefix}.checkout"]
    charges = Counter((key, run) for name, key, run in ledger if name == "charge")
    assert set(charges.values()) == {1}, "paid twice by one process"
    assert len({key for key, _ in charges}) == paid.total()
    mails = Counter(user for name, user, _ in ledger if name == "mail")
    assert all(paid[user] <= mails[user] <= paid[user] + kills for user in mails)
    assert mails.total() - paid.total() + len(charges) - paid.total() <= kills * CLIENTS


def check_chains(answers: dict[str, Any], ledger: list[list[str]], rounds: int) -> None:
    """A side effect is repeated only by another process, and only while nothing had followed from it."""
    first: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], int] = {}
    seen: set[tuple[str, str, str]] = set()
    for place, (effect, name, run) in enumerate(ledger):
        if effect in CHAIN:
            assert (effect, name, run) not in seen, "run twice by one process"
            seen.add((effect, name, run))
            first.setdefault((effect, name), place)
            last[effect, name] = place
    for client in range(CLIENTS):
        for round in range(rounds):
            name = f"{client}.{round}"
            assert answers[f"{name}.chain"] == " ".join(CHAIN)
            for effect, earlier in ALLOWED_BEFORE.items():
                for one in earlier:
                    assert last[one, name] < first[effect, name], f"{one} of {name} ran again after {effect}"


def check_diaries(diaries: dict[str, list[str]], rounds: int) -> None:
    """Messages of one sender arrive once and in order, and so does what the diary sends on."""
    expected: dict[str, list[str]] = {}
    for client in range(CLIENTS):
        for round in range(rounds):
            for diary in (diary_of(client, round), f"copy of {diary_of(client, round)}"):
                expected.setdefault(diary, []).append(f"{client}.{round}")
    assert diaries == expected
