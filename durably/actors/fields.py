"""`DeclaredField`: what a state field and a promise share, the attribute of the class and the name in the store."""

from __future__ import annotations

from typing import Any, ClassVar

from durably.actors.values.serde import Serde, declared_serde
from durably.actors.values.type_checks import is_text
from durably.errors import DefinitionError
from durably.ids import is_storable


class DeclaredField:
    """What is declared in the body of a class and kept for each of its objects."""

    KIND: ClassVar[str]

    def __init__(self, name: str | None, serde: Serde[Any] | None) -> None:
        """
        Raises:
            DefinitionError: the name cannot be one, or `serde` is no Serde.
        """
        if name is not None and not (name and is_text(name) and is_storable(name)):
            raise DefinitionError(
                f"The name of a {self.KIND} is Unicode text without NUL, and not empty; {name!r} is not."
            )
        if serde is not None:
            declared_serde(serde, f"serde= of a {self.KIND}")
        self._name = name
        self.serde = serde
        """Writes its value, instead of the class's."""
        self.attribute = ""
        self.owner: type = object

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute
        self.owner = owner

    @property
    def name(self) -> str:
        """The name under which it is stored; for a promise, also the one by which `ctx.promise` finds it."""
        return self._name or self.attribute

    def __repr__(self) -> str:
        return f"<{self.KIND} {self.owner.__name__}.{self.attribute}>"
