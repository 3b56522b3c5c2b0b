"""`ThreadYielding`: a saturated event loop makes room for the threads that it waits for (rule X8).

Between two callbacks the loop lets the interpreter lock go and takes it back before another thread has woken, so beside
a loop that never idles a committing thread gets no turn at all. While thread work is outstanding, the loop is watched:
if it has used the processor without a pause for `give_way_us`, and no thread has finished anything meanwhile, it stands
still for a moment with the lock released, and for longer if that did not help. A calm loop is never held up, nor is one
whose threads get their turns anyway, as they do where the host has made Python's switch interval short.
"""

from __future__ import annotations

import sys

from durably.runtime.clock import Cancellable, Clock, ThreadShare, block_thread

BUSY_SHARE = 0.8
"""Above this share of processor time the loop has left no room for others."""
SHORT_PAUSE_SECONDS = 0.0002
"""A thread that finds a free processor wakes in less."""
SHORT_PAUSES = 3
"""A thread needs two, to begin and to end; the loop may be late to hear of the second."""
LONG_PAUSE_SECONDS = 0.001
SHORT_SWITCH_INTERVAL_SECONDS = 0.001
"""At or below this, a thread that waits for the interpreter lock gets it soon enough."""


class ThreadYielding:
    """Counts outstanding work of threads, and watches the loop while there is any."""

    __slots__ = (
        "_clock", "_finished", "_finished_before", "_give_way_us", "_in_vain", "_outstanding", "_share", "_timer",
        "pauses",
    )  # fmt: skip

    def __init__(self, clock: Clock, give_way_us: int | None) -> None:
        """None: there are no threads to make room for (virtual time)."""
        self._clock = clock
        self._give_way_us = give_way_us
        self._outstanding = 0
        self._finished = 0
        self._finished_before = 0
        self._in_vain = 0
        """Pauses since a thread has finished anything."""
        self._timer: Cancellable | None = None
        self._share: ThreadShare | None = None
        self.pauses = 0

    def begin(self) -> None:
        """A thread has been given work: a commit, a load, an action."""
        self._outstanding += 1
        if self._timer is None and self._give_way_us is not None:
            if sys.getswitchinterval() <= SHORT_SWITCH_INTERVAL_SECONDS:
                return
            self._share = None
            self._timer = self._clock.call_later(self._give_way_us, self._look)

    def end(self) -> None:
        """A thread has done its work."""
        self._outstanding -= 1
        self._finished += 1

    def _look(self) -> None:
        """The watch goes on as long as work keeps coming; the first look only takes the measure."""
        assert self._give_way_us is not None
        if self._outstanding == 0:
            self._timer = None
            return
        if self._share is None:
            self._share = ThreadShare()
        elif self._finished != self._finished_before:
            self._share.busy()
            self._in_vain = 0
        elif self._share.busy() >= BUSY_SHARE:
            self.pauses += 1
            block_thread(SHORT_PAUSE_SECONDS if self._in_vain < SHORT_PAUSES else LONG_PAUSE_SECONDS)
            self._in_vain += 1
            self._share.busy()  # Start over behind the pause.
        self._finished_before = self._finished
        self._timer = self._clock.call_later(self._give_way_us, self._look)
