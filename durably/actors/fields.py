"""`DeclaredField`: what a state field and a promise share, the attribute of the class and the name in the store."""

from __future__ import annotations

from typing import Any, ClassVar

from durably.actors.values.serde import Serde


class DeclaredField:
    """What is declared in the body of a class and kept for each of its objects."""

    KIND: ClassVar[str]

    def __init__(self, name: str | None, serde: Serde[Any] | None) -> None:
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
