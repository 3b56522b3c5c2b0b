"""`StateSize`: the state of one object has a limit, and a warning comes before it.

It is looked at when a step has changed the state, before the step is appended: what would make the state too large has
not happened. A state that is too large already, because the limit was a higher one, may be made smaller. Nearly all
steps are so small that there is nothing to check (`surely_bytes`).
"""

from __future__ import annotations

from collections.abc import Mapping

from durably.actors.protocol.entries import is_of_entries
from durably.errors import UnencodableError
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings

WARNED_FROM = 0.75
"""The part of the limit from which on a warning is due, once for each object while it is in memory."""

Changes = Mapping[str, bytes | None]


class StateSize:
    """Checks the state of the objects of one incarnation."""

    def __init__(self, observer: Observer, settings: Settings) -> None:
        self._observer = observer
        self._limit_bytes = settings.state_bytes
        self.surely_bytes = int(settings.state_bytes * WARNED_FROM)
        """What the state and all that changes it hold together when there is nothing to check."""

    def check(self, invocation: InvocationRun, changes: Changes) -> None:
        """Entries do not count: they are no part of what is loaded with the object (rule V7).

        Raises:
            UnencodableError: with these changes the state would be too large, and larger than the invocation found it.
        """
        journal, activation = invocation.journal, invocation.activation
        earlier: Changes = {} if journal is None else journal.changes
        fields = {name: value for name, value in changes.items() if not is_of_entries(name)}
        state: dict[str, bytes | None] = {**activation.snapshot, **earlier, **fields}
        size_bytes = _size(state)
        if size_bytes > max(self._limit_bytes, activation.state_bytes):
            largest = max(state, key=lambda name: len(state[name] or b""))
            raise UnencodableError(
                f"The state of {'/'.join(invocation.address)} would have {size_bytes} bytes; at most "
                f"{self._limit_bytes} are allowed (Limits(state_bytes=...)). The largest field is {largest!r}. Keep "
                "large things elsewhere (a Lazy, DurableDict or DurableList does not count), or spread them over "
                "several objects; then resume it, or kill it."
            )
        if size_bytes > self.surely_bytes and not activation.warned_of_size:
            activation.warned_of_size = True
            self._observer.state_is_large(invocation, size_bytes, self._limit_bytes)


def _size(values: Changes) -> int:
    return sum([len(value) for value in values.values() if value is not None])
