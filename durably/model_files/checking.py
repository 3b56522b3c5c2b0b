"""What a file of models means has to be possible: states are there, names are free, every state can be reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from keyword import iskeyword
from typing import Final

from durably.actors.machines.machine import Machine
from durably.actors.machines.model import Model
from durably.actors.machines.type_ids import LONGEST_PREFIX, PREFIX, TRANSITION_PREFIX
from durably.model_files.declarations import (
    FieldDeclaration,
    FieldType,
    ModelDeclaration,
    Name,
    StateDeclaration,
    TransitionDeclaration,
)
from durably.model_files.names import (
    LOWER_NAME,
    OPTIONAL,
    TYPE_NAMES,
    UPPER_NAME,
    fields_class,
    machine_class,
    snake,
    written_plainly,
)
from durably.model_files.problems import ProblemList, in_words, suggestion

RESERVED_FIELDS: Final = frozenset({"id", "state", "of", "note"})
_PYTHON_NAMES: Final = frozenset({"self", "ctx", "int", "str", "bool"})
"""What the generated class uses where a field of the name would hide it."""
_MODULES: Final = frozenset({"models", "abc"})
"""What the generated class imports and a transition would hide."""


def check(models: Sequence[ModelDeclaration], problems: ProblemList) -> None:
    """Note everything that is wrong with the models of one file."""
    for model in models:
        _ModelCheck(model, problems).check()


def check_together(models: Iterable[tuple[ModelDeclaration, ProblemList]]) -> None:
    """Note which models of all files have one name, or one prefix."""
    names: dict[str, ModelDeclaration] = {}
    prefixes: dict[str, ModelDeclaration] = {}
    for model, problems in models:
        other = names.setdefault(snake(model.name.text), model)
        if other is not model:
            problems.add(
                model.name,
                f"There is a model {other.name} already, and both would be the module {snake(model.name.text)}.py. "
                "Give one another name.",
            )
            continue
        other = prefixes.setdefault(model.prefix, model)
        if other is not model:
            problems.add(
                model.prefixes[0] if model.prefixes else model.name,
                f"Ids of {other.name} begin with '{model.prefix}_' too, so an id would not say what it is of. Write "
                f'another one: prefix "{snake(model.name.text)}".',
            )


class _ModelCheck:
    """Checks one model."""

    def __init__(self, model: ModelDeclaration, problems: ProblemList) -> None:
        self._model = model
        self._problems = problems
        self._add = problems.add
        self._states = [one.name.text for one in model.states]

    def check(self) -> None:
        model = self._model
        self._check_upper(model.name, "A model")
        self._check_prefix()
        self._check_twice((one.name for one in model.states), "state")
        self._check_twice((one.name for one in model.transitions), "transition")
        for state in model.states:
            self._check_state_name(state.name)
        for transition in model.transitions:
            self._check_transition_name(transition.name)
        fields = [model.fields, *(one.fields for one in model.states), *(one.fields for one in model.transitions)]
        for some in fields:
            self._check_fields(some)
        ways = [state for one in model.transitions for state in (*(one.sources or ()), *one.targets)]
        parents = [parent for one in model.states for parent in one.parents]
        unknown = [one for one in (*parents, *ways) if one.text not in self._states]
        for one in unknown:
            self._add(one, self._unknown(one))
        if unknown or len(set(self._states)) < len(self._states) or self._has_cycle():
            return
        for state in model.states:
            self._check_twice_above(state)
            self._check_taken_over(state)
        self._check_one_type()
        self._check_case()
        self._check_indexes()
        if not self._problems.found:
            self._check_reach()

    # ------------------------------------------------------------ names

    def _check_prefix(self) -> None:
        for one in self._model.prefixes[1:]:
            self._add(one, f"Model {self._model.name} has a prefix already. Leave one.")
        for one in self._model.prefixes[:1]:
            if not PREFIX.fullmatch(one.text) or len(one.text) > LONGEST_PREFIX:
                self._add(
                    one,
                    "Ids begin with the prefix, so it is lower case letters, digits and '_', begins with a letter, and "
                    f'has at most {LONGEST_PREFIX} of them. Write prefix "{snake(self._model.name.text)}".',
                )
            elif one.text == TRANSITION_PREFIX:
                self._add(one, f"Ids of transitions begin with '{TRANSITION_PREFIX}_'. Write another prefix.")

    def _check_upper(self, name: Name, what: str) -> None:
        if not UPPER_NAME.fullmatch(name.text):
            plain = written_plainly("".join(part for part in name.text if part.isascii() and part.isalnum()))
            plain = plain.lstrip("0123456789")
            example = plain[:1].upper() + plain[1:] if plain else "Order"
            self._add(
                name,
                f"{what} is written in letters and digits, the first a capital, and {name.text!r} is not. Write "
                f"{example}.",
            )
        elif name.text in TYPE_NAMES:
            self._add(name, f"{name.text} is a type of fields. Call it something else.")
        elif iskeyword(name.text) and what != "A transition":
            self._add(name, f"{name.text} means something else in Python. Call it something else.")

    def _check_state_name(self, name: Name) -> None:
        self._check_upper(name, "A state")
        model = self._model.name.text
        taken = {model: "the model", machine_class(model): "the class that is generated for the transitions"}
        taken |= {
            fields_class(parent.text): f"the class that is generated for the fields of {parent}"
            for one in self._model.states
            for parent in one.parents
        }
        if name.text in taken:
            self._add(name, f"{name} is the name of {taken[name.text]}. Call the state something else.")

    def _check_transition_name(self, name: Name) -> None:
        self._check_upper(name, "A transition")
        self._check_round_trip(name)
        attribute = snake(name.text)
        if hasattr(Machine, attribute) or attribute == "get":
            self._add(name, f"Every machine has {attribute}() already. Call the transition something else.")
        elif attribute in _MODULES:
            self._add(name, f"The generated class imports {attribute}. Call the transition something else.")

    def _check_fields(self, fields: Sequence[FieldDeclaration]) -> None:
        self._check_twice((one.name for one in fields), "field")
        for one in fields:
            self._check_field_name(one.name)
            self._check_type(one.type)

    def _check_field_name(self, name: Name) -> None:
        if not LOWER_NAME.fullmatch(name.text):
            plain = written_plainly(name.text[:1].lower() + name.text[1:])
            example = plain if LOWER_NAME.fullmatch(plain) else "amount"
            self._add(
                name,
                f"A field is written in letters and digits, the first a small one, and {name.text!r} is not. Write "
                f"{example}.",
            )
        elif name.text in RESERVED_FIELDS:
            why = "options of a transition have it" if name.text == "note" else "every object has it"
            self._add(name, f"{name.text!r} is reserved: {why} already. Call the field something else.")
        elif name.text in _PYTHON_NAMES or hasattr(Model, snake(name.text)):
            self._add(name, f"{name.text!r} means something else in Python. Call the field something else.")
        else:
            self._check_round_trip(name)

    def _check_round_trip(self, name: Name) -> None:
        plain = written_plainly(name.text)
        is_well_formed = UPPER_NAME.fullmatch(name.text) or LOWER_NAME.fullmatch(name.text)
        if is_well_formed and plain != name.text:
            python = snake(name.text)
            self._add(name, f"{name} would be {python} in Python, and that is {plain} in JSON. Write {plain}.")

    def _check_twice(self, names: Iterable[Name], what: str, article: str = "a") -> None:
        seen: dict[str, Name] = {}
        for name in names:
            first = seen.setdefault(name.text, name)
            if first is not name:
                self._add(
                    name, f"There is {article} {what} {name} in line {first.line} already. Remove one, or rename it."
                )

    def _check_type(self, given: FieldType) -> None:
        name = given.name
        known = in_words([*(one for one in TYPE_NAMES if one != OPTIONAL), f"{OPTIONAL}[...]"])
        if name.text not in TYPE_NAMES:
            hint = suggestion(name.text, TYPE_NAMES)
            self._add(name, f"There is no type {name}. The types are {known}.{hint}")
        elif name.text == OPTIONAL and given.inner is None:
            self._add(name, "Optional says of what: write Optional[String].")
        elif name.text != OPTIONAL and given.inner is not None:
            self._add(name, f"Only Optional takes a type in brackets. Write {name}, or Optional[{name}].")
        elif given.inner is not None:
            if given.inner.name.text == OPTIONAL:
                self._add(given.inner.name, "This is optional already. Write Optional once.")
            else:
                self._check_type(given.inner)

    # ------------------------------------------------------------ states

    def _unknown(self, name: Name) -> str:
        if not self._states:
            return f"Model {self._model.name} has no states. Write `state {name} {{}}`."
        return (
            f"There is no state {name} in model {self._model.name}, which has {in_words(self._states)}."
            f"{suggestion(name.text, self._states) or f' Write `state {name} {{}}` to add it.'}"
        )

    def _has_cycle(self) -> bool:
        for state in self._model.states:
            if any(above is state for above in self._model.ancestors_of(state)):
                parent = state.parents[0]
                self._add(
                    parent,
                    f"{state.name} takes over the fields of {parent}, and in the end its own: a circle. Remove `: ...` "
                    "from one of these states.",
                )
                return True
        return False

    def _check_twice_above(self, state: StateDeclaration) -> None:
        seen = set[str]()
        for parent in state.parents:
            if parent.text in seen:
                self._add(parent, f"{state.name} takes over the fields of {parent} already. Name it once.")
            seen.add(parent.text)

    def _check_taken_over(self, state: StateDeclaration) -> None:
        """A field has one origin."""
        origins = {one.name.text: f"every state of {self._model.name}" for one in self._model.fields}
        for above in self._model.ancestors_of(state):
            for one in above.fields:
                if one.name.text in origins and not self._is_reported_at(above, one):
                    self._add(
                        next(iter(state.parents)),
                        f"{state.name} would have the field {one.name} from {origins[one.name.text]} and from "
                        f"{above.name}. Rename one of them.",
                    )
                origins[one.name.text] = str(above.name)
        for one in state.fields:
            if one.name.text in origins:
                self._add(
                    one.name,
                    f"{state.name} has the field {one.name} from {origins[one.name.text]} already. Remove it here, or "
                    "rename it.",
                )

    def _check_one_type(self) -> None:
        """Queries compare a field in one way, in whichever states it is."""
        seen: dict[str, tuple[StateDeclaration, FieldDeclaration]] = {}
        for state in self._model.states:
            for one in state.fields:
                other, first = seen.setdefault(one.name.text, (state, one))
                wanted = _base_type(first.type)
                if _base_type(one.type) != wanted:
                    self._add(
                        one.type.name,
                        f"The field {one.name} is {wanted} in {other.name}, and queries compare it in one way. Write "
                        f"`field {one.name}: {wanted}`, or rename it.",
                    )

    def _check_case(self) -> None:
        """Tables do not tell fields apart by case."""
        seen: dict[str, Name] = {}
        for one in self._all_fields():
            if not LOWER_NAME.fullmatch(one.name.text):
                continue  # It is told already.
            first = seen.setdefault(one.name.text.lower(), one.name)
            if first.text != one.name.text:
                self._add(
                    one.name,
                    f"There is a field {first} in line {first.line}, and in a table they would be one. Write {first}, "
                    "or rename it.",
                )

    def _check_indexes(self) -> None:
        self._check_twice(self._model.indexes, "index of", "an")
        known = list(dict.fromkeys(one.name.text for one in self._all_fields()))
        for one in self._model.indexes:
            if one.text not in known:
                there = f"which has {in_words(known)}" if known else "which has none"
                self._add(
                    one,
                    f"There is no field {one} in model {self._model.name}, {there}.{suggestion(one.text, known)}",
                )

    def _all_fields(self) -> list[FieldDeclaration]:
        return [*self._model.fields, *(one for state in self._model.states for one in state.fields)]

    def _is_reported_at(self, state: StateDeclaration, field: FieldDeclaration) -> bool:
        """Whether the state that declares a field has it from above too, which is told there."""
        above = [*self._model.fields, *(one for parent in self._model.ancestors_of(state) for one in parent.fields)]
        return any(one.name.text == field.name.text for one in above)

    def _check_reach(self) -> None:
        """As the class that is generated would be refused otherwise: from new objects a way leads to every state."""
        transitions = self._model.transitions
        if not transitions:
            return
        initial = [one for one in transitions if one.sources is None]
        if not initial:
            self._add(
                transitions[0].name,
                f"Every transition of {self._model.name} leads from a state, so no object would ever be made. Add one "
                f"that leads from none: `transition Create: {self._states[0]} {{}}`.",
            )
            return
        reached = {state for one in initial for state in self._targets(one)}
        while (
            more := {state for one in transitions if reached & set(self._sources(one)) for state in self._targets(one)}
            - reached
        ):
            reached |= more
        for state in self._model.states:
            if state.name.text not in reached:
                self._add(
                    state.name,
                    f"No transition leads to {state.name}, from any object that there can be. Add one, such as "
                    f"`transition To{state.name}: {next(iter(sorted(reached)))} -> {state.name} {{}}`, or remove the "
                    "state.",
                )

    def _sources(self, one: TransitionDeclaration) -> Iterator[str]:
        return self._named(one.sources) if one.sources is not None else iter(())

    def _targets(self, one: TransitionDeclaration) -> Iterator[str]:
        return self._named(one.targets)

    def _named(self, names: Sequence[Name]) -> Iterator[str]:
        return (one.text for one in names) if names else iter(self._states)


def _base_type(given: FieldType) -> str:
    return given.name.text if given.inner is None else _base_type(given.inner)
