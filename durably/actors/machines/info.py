"""`MachineInfo`: what is known of a machine once its class is defined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durably.actors.machines.model import Model
from durably.queries import FieldName, TableLayout

MACHINE = "__durably_machine__"
"""Where the class of a machine keeps it."""
HISTORY = "__durably_history_us__"
"""Where a class keeps what `history=` says; those that extend it find it there."""
VERSION_FIELD = "object"
"""The stored name of the state that is the present version."""
VERSION = "_durably_version"
"""Its attribute."""
QUESTIONS = "questions"
"""What the front of a machine is called, behind the machine's name."""
RUNNER = "_durably_{}"
"""Those of the handlers that run transitions, by the attribute of the transition."""
READER = "_durably_get"
"""The attribute of the handler that gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineInfo:
    """A machine."""

    model: type[Model]
    service: str
    """The name on the wire, of the stream of its transitions, too."""
    fields: Mapping[str, FieldName]
    """What queries may ask for, by names in Python."""
    table: TableLayout
    history_us: int | None
    """How long its transitions are kept, in microseconds; None: for ever."""


def info_of(machine: type) -> MachineInfo:
    """What is known of a class of transitions."""
    found: Any = getattr(machine, MACHINE)
    assert isinstance(found, MachineInfo)
    return found
