"""What is wrong with the types of a class that can be said when it is defined, before it is bound.

Types are resolved late, because names in annotations may be defined later. Protobuf messages are generated before
anything that uses them, so a Serde that cannot write one is refused with the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from inspect import get_annotations
from typing import Any

from durably.actors.definition.definition import ActorDefinition, AnyHandler
from durably.actors.definition.large_types import value_types
from durably.actors.definition.scope import Scope
from durably.actors.definition.signature import serde_of
from durably.actors.state import StateField
from durably.actors.values.descriptions import named
from durably.actors.values.messages import may_exist, mentions_message
from durably.actors.values.serde_fit import check_fit
from durably.errors import DefinitionError


def check_messages(definition: ActorDefinition) -> None:
    """See that messages can be written, where the class says by which Serde; else it is the runtime's matter.

    Raises:
        DefinitionError: one cannot.
    """
    if not may_exist():
        return
    own = vars(definition.actor)
    for handler in definition.handlers.values():
        if handler.attribute in own:
            _check_handler(definition, handler)
    for field in definition.fields.values():
        if field.attribute in own:
            _check_field(definition, field)


def _check_handler(definition: ActorDefinition, handler: AnyHandler) -> None:
    signature = handler.signature
    if signature.serde is None and not signature.has_serdes:
        return
    known = _resolved(definition.scope, signature.annotations)
    is_about_messages = signature.has_serdes or any(map(mentions_message, known.values()))
    if is_about_messages and len(known) == len(signature.annotations):
        signature.check_types()


def _check_field(definition: ActorDefinition, field: StateField) -> None:
    where = f"the state {named(definition.actor)}.{field.attribute}"
    annotations = {field.attribute: get_annotations(definition.actor)[field.attribute]}
    for written in _resolved(definition.scope, annotations).values():
        annotation = value_types(written)
        if field.serde is not None:
            check_fit(field.serde, annotation, where)
        elif definition.serde is not None and mentions_message(annotation):
            serde_of(definition.serde, annotation, where)


def _resolved(scope: Scope, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Those whose names are known already."""
    known: dict[str, Any] = {}
    for name, annotation in annotations.items():
        with suppress(DefinitionError):  # It is said when the class is bound.
            known |= scope.resolve({name: annotation}, "")
    return known
