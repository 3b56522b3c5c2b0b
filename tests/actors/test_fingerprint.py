"""Which changes of code give it another fingerprint, and which do not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

from durably.actors.definition.fingerprint import FINGERPRINT_CHARACTERS, fingerprint

BASIS = """
import json

LIMIT = 3

def helper(a):
    return [one for one in a if one in {"x", "y", "z"}]

class Cart:
    def total(self, a, b=1):
        return helper(a) + b

    @property
    def name(self):
        return "cart"

    def unused(self):
        return 1

    async def handle(self, ctx, order):
        '''Handles.'''
        def inner():
            return self.total(order)
        return json.dumps([inner(), self.name, LIMIT])
"""


def of(source: str) -> str:
    module = ModuleType("made_for_a_fingerprint")
    exec(compile(textwrap.dedent(source), "made.py", "exec"), vars(module))
    cls = module.Cart
    return fingerprint(cls.handle, cls)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return json.dumps", "return json.loads"),
        ("return self.total(order)", "return self.total(order, 1)"),
        ("return helper(a) + b", "return helper(a) - b"),
        ("b=1", "b=2"),
        ('return "cart"', 'return "basket"'),
        ('"z"}', '"w"}'),
        ("for one in a", "for one in a[1:]"),
    ],
)
def test_a_change_of_what_runs_changes_it(before: str, after: str) -> None:
    assert of(BASIS.replace(before, after)) != of(BASIS)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("'''Handles.'''", "'''Handles an order, one at a time.'''"),
        ("LIMIT = 3", "# a comment\n\n\nLIMIT = 3"),
        ("return 1", "return 2"),
        ("def unused", "def another_one"),
    ],
)
def test_a_change_of_what_does_not_run_changes_nothing(before: str, after: str) -> None:
    assert of(BASIS.replace(before, after)) == of(BASIS)


def test_it_is_the_same_in_every_process() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", "from tests.actors.test_fingerprint import *; print(of(BASIS))"],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {of(BASIS)}
    assert len(of(BASIS)) == FINGERPRINT_CHARACTERS
