"""`StateMigrations`: code meets state of its own version only.

State of an older version is migrated when a handler of its object is about to begin, in a transition of its own:
between two invocations (rule V4). While an invocation is under way that began on the older state, the object waits for
it, and it waits for the code that it began with, or for a person who restarts or ends it.
"""

from __future__ import annotations

from durably.errors import StateMigrationError, StateVersionError, UnreadableRecordError
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun


class StateMigrations:
    """The migrations of one incarnation."""

    def __init__(self, *, committer: Committer) -> None:
        self._committer = committer

    def why_not(self, invocation: InvocationRun) -> UnreadableRecordError | None:
        """Migrate the object of an invocation that is about to be advanced; why that cannot be, if it cannot."""
        activation, holder = invocation.activation, invocation.activation.current
        if holder is not None and holder.journal is not None:
            return began_on_older_state(holder, activation)
        if not activation.snapshot:
            activation.state_version = activation.actor.state_version
            return None
        try:
            migrated = activation.actor.migrate_state(activation.snapshot, activation.state_version)
        except StateMigrationError as error:
            error.message = f"{'/'.join(activation.address)}: {error.message}"
            return error
        snapshot = activation.snapshot
        changes: dict[str, bytes | None] = {name: None for name in snapshot if name not in migrated}
        changes |= {name: value for name, value in migrated.items() if snapshot.get(name) != value}
        activation.state_version = activation.actor.state_version
        self._committer.begin().change_state(activation, changes)
        return None


def began_on_older_state(holder: InvocationRun, activation: Activation) -> StateVersionError:
    """Why nothing of an object goes on while an invocation holds it that began on older state."""
    return StateVersionError(
        f"{holder.target} ({holder.id}) began when the state of {'/'.join(activation.address)} had version "
        f"{activation.state_version}, and the code has version {activation.actor.state_version}. State is migrated "
        "between invocations only, so this one cannot go on with this code. Bring the old code back until it has "
        "ended, or restart it (it begins anew, on the migrated state), cancel it or kill it."
    )
