"""Transitions of machines, as hypothesis calls them, and what their declaration promises of each history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from durably.actors.actor import Actor, StateMachine
from durably.actors.definition.arguments import Parameter
from durably.actors.machines.abstract import transitions_of
from durably.actors.machines.definitions import AnyDefinition
from durably.actors.machines.info import info_of
from durably.actors.machines.model import Model, state_name
from durably.actors.machines.transition import Transition
from durably.actors.values.descriptions import MISSING
from durably.testing.harness.conditions import InvariantError


def is_machine(actor: type[Actor]) -> bool:
    """Its objects are called by transitions, on what `machine(...)` gives."""
    return issubclass(actor, StateMachine)


def parameters_of(definition: AnyDefinition) -> Sequence[Parameter]:
    """What a caller gives beside the object."""
    assert definition.data is not None, "the class of the machine is defined"
    types = {one.name: one.type for one in msgspec.structs.fields(definition.data)}
    return [
        Parameter(
            name=one.name,
            annotation=types[one.name],
            default=MISSING if one.default is one.empty else one.default,
            keyword_only=True,
        )
        for one in definition.parameters
    ]


def check_history(machines: Iterable[type[Actor]], version: Model, latest_first: Sequence[Transition]) -> None:
    """An object has been made by one transition, and each further one began where the one before had led to.

    `machines` are all classes, of old code too, that may have made them. Of those that keep their history for a time,
    the oldest ones may be gone.

    Raises:
        InvariantError: its history differs; says where.
    """
    machines = [*machines]
    declared = _declared(machines)
    before: str | None = None
    if any(info_of(one).history_us is not None for one in machines):
        before = latest_first[-1].source if latest_first else version.state
    for one in reversed(latest_first):
        sources, targets = declared.get(one.name, ({one.source}, {one.target}))
        if one.source != before or one.source not in sources or one.target not in targets:
            raise InvariantError(
                f"{version.id} was {before or 'not there'} when {one.name} led it from {one.source} to {one.target}. "
                f"Its history: {_told(latest_first)}."
            )
        before = one.target
    if before != version.state:
        raise InvariantError(f"{version.id} is {version.state}, and its history says: {_told(latest_first)}.")


def _declared(machines: Iterable[type[Actor]]) -> Mapping[str, tuple[set[str | None], set[str]]]:
    declared: dict[str, tuple[set[str | None], set[str]]] = {}
    for machine in machines:
        for one in transitions_of(machine):
            sources, targets = declared.setdefault(one.name, (set(), set()))
            sources |= {state_name(state) for state in one.sources} if one.sources else {None}
            targets |= {state_name(state) for state in one.targets}
    return declared


def _told(latest_first: Sequence[Transition]) -> str:
    return ", ".join(f"{one.name} ({one.source} -> {one.target})" for one in reversed(latest_first)) or "nothing"
