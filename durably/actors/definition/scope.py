"""Annotations resolved late: at binding, when every class that they name exists, also where classes stand in functions.

The names of a class defined in a function are looked up in that function's variables, so its frame is kept until the
class is bound, and then let go.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from types import FrameType, SimpleNamespace
from typing import Any

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError


class Scope:
    """Where the names in the annotations of one class are looked up."""

    def __init__(self, owner: type, frame: FrameType | None) -> None:
        self.owner = owner
        self._frame = frame if "<locals>" in owner.__qualname__ else None

    def of(self, base: type) -> Scope:
        """Where those of another class are looked up, which may stand beside this one in a function."""
        return Scope(base, self._frame)

    def close(self) -> None:
        """Let the defining function's frame go; what is resolved stays resolved."""
        self._frame = None

    def resolve(
        self, annotations: Mapping[str, Any], where: str, known: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The types that these annotations mean. `known` are names that are meant where nothing else has them.

        Raises:
            DefinitionError: a name in one of them is unknown; `where` is the place that the sentence names.
        """
        module = sys.modules.get(self.owner.__module__)
        names = {**(known or {}), **vars(self.owner), **(self._frame.f_locals if self._frame else {})}
        return resolve_annotations(annotations, vars(module) if module else {}, names, where)


def resolve_annotations(
    annotations: Mapping[str, Any], global_names: Mapping[str, Any], local_names: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The types that these annotations mean, names looked up in the two mappings."""
    return {
        name: _resolve(name, annotation, dict(global_names), local_names, where)
        for name, annotation in annotations.items()
    }


def _resolve(
    name: str, annotation: Any, global_names: dict[str, Any], local_names: Mapping[str, Any], where: str
) -> Any:
    holder: Any = SimpleNamespace(__annotations__={name: annotation})
    try:
        return typing.get_type_hints(holder, global_names, dict(local_names), include_extras=True)[name]
    except USER_ERRORS as error:  # An annotation is an expression of the user's; it may raise anything.
        let_signals_pass(error)
        raise DefinitionError(
            f"The annotation {annotation!r} of {name!r} in {where} cannot be resolved: {error}. If its name is "
            "imported only under `if TYPE_CHECKING:`, import it at run time too: values are encoded and decoded by "
            "their annotations."
        ) from error
