"""`CodeVersions`: which code runs here, of each handler, and what is said where other code made a journal (rule S5)."""

from __future__ import annotations

import platform

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.definition.fingerprint import fingerprint
from durably.errors import NonDeterminismError
from durably.runtime.execution.step import CodeVersion
from durably.runtime.invocations.journal import Versions, version_at


class CodeVersions:
    """The versions of the handlers of one runtime. `given` is what the program calls its code, if it does."""

    def __init__(self, given: str | None = None) -> None:
        self._given = given
        self._of: dict[BoundActorHandler, CodeVersion] = {}

    def of(self, handler: BoundActorHandler) -> CodeVersion:
        """The version of a handler as it is in this process."""
        known = self._of.get(handler)
        if known is None:
            code = self._given or fingerprint(handler.function, handler.info.actor, handler.middleware)
            known = self._of[handler] = CodeVersion(code, this_python(), handler.state_version)
        return known

    def tell(self, error: NonDeterminismError, recorded: Versions, handler: BoundActorHandler) -> None:
        """Add to a difference which code made the step and which one replayed it, if that is not the same."""
        before, now = version_at(recorded, error.step), self.of(handler)
        if before is not None and before != now:
            error.message += f"\n{about_versions(before, now)}"


def about_versions(before: CodeVersion, now: CodeVersion) -> str:
    """What two versions say about a difference between them."""
    told = f"The step was recorded by {before} and replayed by {now}."
    if before.python == now.python:
        return told
    why = "asyncio orders callbacks differently from one minor version of Python to the next"
    if before.code == now.code:
        return f"{told} That may be the whole difference: {why}. Run Python {before.python} to let it finish."
    return f"{told} Besides the code, {why}."


def this_python() -> str:
    """The minor version of the running Python."""
    major, minor, _ = platform.python_version_tuple()
    return f"{major}.{minor}"
