"""What stands in a file of models, as values; each name knows its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A word in a file. Lines and columns begin with 1."""

    text: str
    line: int
    column: int
    length: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldType:
    """`Int`, or `Optional[Int]`."""

    name: Name
    inner: FieldType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDeclaration:
    """`field amount: Int`"""

    name: Name
    type: FieldType
    comment: str = ""

    @property
    def is_optional(self) -> bool:
        return self.type.inner is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDeclaration:
    """`state DeliveryBooked: Paid { ... }`"""

    name: Name
    parents: Sequence[Name]
    """The states whose fields it takes over."""
    fields: Sequence[FieldDeclaration]
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionDeclaration:
    """`transition Pay: Created -> Paid { ... }`"""

    name: Name
    sources: Sequence[Name] | None
    """None: it makes an object. Empty: from every state, `*`."""
    targets: Sequence[Name]
    """Empty: to any state."""
    fields: Sequence[FieldDeclaration]
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeclaration:
    """`model Order { ... }`"""

    name: Name
    prefixes: Sequence[Name]
    """One, or none, once it is checked."""
    indexes: Sequence[Name]
    """The fields that queries find objects by quickly."""
    fields: Sequence[FieldDeclaration]
    states: Sequence[StateDeclaration]
    transitions: Sequence[TransitionDeclaration]
    comment: str = ""

    @property
    def prefix(self) -> str:
        return self.prefixes[0].text if self.prefixes else self.name.text.lower()

    def state(self, name: str) -> StateDeclaration:
        return next(one for one in self.states if one.name.text == name)

    def parents_of(self, state: StateDeclaration) -> Iterator[StateDeclaration]:
        """The states whose fields it takes over, but for those that another one of them takes over already."""
        inherited = {
            above.name.text for parent in state.parents for above in self.ancestors_of(self.state(parent.text))
        }
        for parent in state.parents:
            if parent.text not in inherited:
                yield self.state(parent.text)

    def ancestors_of(self, state: StateDeclaration) -> Iterator[StateDeclaration]:
        """All states above it, the nearest first, each once."""
        seen: dict[str, StateDeclaration] = {}
        waiting = list(state.parents)
        while waiting:
            parent = self.state(waiting.pop(0).text)
            if parent.name.text not in seen:
                seen[parent.name.text] = parent
                waiting.extend(parent.parents)
        return iter(seen.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file of models that is right."""

    path: str
    text: str = field(repr=False)
    models: Sequence[ModelDeclaration]
