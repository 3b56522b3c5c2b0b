"""Runs that failed once. A seed means the same run only as long as the world takes its choices in the same order, so
what was wrong also has a test of its own, where it is not as rare as the run that found it.
"""

from __future__ import annotations

import pytest

from workloads import WORKLOADS

FAILED = [
    ("bank", 134, "a delayed payment was made twice: its timer was read ahead while it rang"),
    ("counters", 63, "the same, with a message to itself"),
    ("counters", 215, "the same"),
    ("counters", 58, "a mailbox was loaded from an answer that somebody else had asked for before"),
    ("counters", 45, "the same, from an answer that was shared with whoever had asked before"),
    ("circles", 99, "a second call got a DeadlockError: the search began at what had left memory since"),
    ("sagas", 19, "a handler that broke when it heard of a cancel behind its callee was tried again for ever"),
    ("sagas", 427, "a saga that was started and cancelled before it began had no state"),
]


@pytest.mark.parametrize(("workload", "seed", "wrong"), FAILED, ids=[f"{name}-{seed}" for name, seed, _ in FAILED])
def test_what_failed_once_does_not_fail_again(workload: str, seed: int, wrong: str) -> None:
    assert WORKLOADS[workload].run(seed).runs == 1, wrong
