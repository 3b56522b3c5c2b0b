"""From text to declarations. What the grammar does not allow is told with its place and with what to write there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput

from durably.model_files.declarations import (
    FieldDeclaration,
    FieldType,
    ModelDeclaration,
    Name,
    StateDeclaration,
    TransitionDeclaration,
)
from durably.model_files.problems import ProblemList, in_words

Node: TypeAlias = "Tree[Token]"

_GRAMMAR: Final = Path(__file__).with_name("grammar.lark")
_EXAMPLES: Final[Mapping[str, str]] = {
    "MODEL": 'A model is written `model Order { prefix "order" ... }`: fields, states and transitions stand inside.',
    "PREFIX": 'A prefix is written `prefix "order"`.',
    "INDEX": "An index is written `index amount`, with the name of a field.",
    "FIELD": "A field is written `field amount: Int`; one that may be empty, `field amount: Optional[Int]`.",
    "STATE": (
        "A state is written `state Paid { field paymentReference: String }`; one that takes over the fields of another "
        "state, `state DeliveryBooked: Paid { ... }`."
    ),
    "TRANSITION": (
        "A transition is written `transition Pay: Created -> Paid { field paymentReference: String }`; one that makes "
        "an object, `transition Create: Created { ... }`."
    ),
}
_WORDS: Final[Mapping[str, str]] = {
    "LBRACE": "`{`", "RBRACE": "`}`", "LSQB": "`[`", "RSQB": "`]`", "COLON": "`:`", "COMMA": "`,`", "VBAR": "`|`",
    "STAR": "`*`", "NAME": "a name", "STRING": "a text in double quotes", "MODEL": "`model`", "PREFIX": "`prefix`",
    "INDEX": "`index`",
    "FIELD": "`field`", "STATE": "`state`", "TRANSITION": "`transition`", "$END": "the end of the file",
    "__ANON_0": "`->`",
}  # fmt: skip


def parse(text: str, problems: ProblemList) -> list[ModelDeclaration]:
    """The models of a file; those of one with a problem are not to be had, and the problem is noted."""
    comments: list[Token] = []
    try:
        tree: Node = _parser(comments.append).parse(text)
    except UnexpectedInput as error:
        _note(error, text, problems)
        return []
    return [_Reader(text, comments).model(one) for one in _children(tree, "model")]


def _parser(on_comment: Any) -> Any:
    return Lark(
        _grammar(), parser="lalr", propagate_positions=False, lexer_callbacks={"COMMENT": on_comment},
        maybe_placeholders=True,
    )  # fmt: skip


@cache
def _grammar() -> str:
    return _GRAMMAR.read_text("utf-8")


# ---------------------------------------------------------------- from trees to declarations


class _Reader:
    """Makes declarations of trees."""

    def __init__(self, text: str, comments: Iterable[Token]) -> None:
        lines = text.split("\n")
        self._comments = {
            _line(one): one.removeprefix("//").strip()
            for one in comments
            if not lines[_line(one) - 1][: _column(one) - 1].strip()
        }
        """Those that have a line for themselves."""

    def model(self, node: Node) -> ModelDeclaration:
        keyword, name, *_ = _parts(node)
        return ModelDeclaration(
            name=_name(name),
            prefixes=[_name(one.children[1], quoted=True) for one in _children(node, "prefix")],
            indexes=[_name(one.children[1]) for one in _children(node, "index")],
            fields=self._fields(node),
            states=[self._state(one) for one in _children(node, "state")],
            transitions=[self._transition(one) for one in _children(node, "transition")],
            comment=self._comment_above(keyword),
        )

    def _state(self, node: Node) -> StateDeclaration:
        keyword, name, parents, *_ = _parts(node)
        return StateDeclaration(
            name=_name(name),
            parents=[] if parents is None else _names(parents),
            fields=self._fields(node),
            comment=self._comment_above(keyword),
        )

    def _transition(self, node: Node) -> TransitionDeclaration:
        keyword, name, sources, targets, *_ = _parts(node)
        return TransitionDeclaration(
            name=_name(name),
            sources=None if sources is None else _names(sources),
            targets=_names(targets),
            fields=self._fields(node),
            comment=self._comment_above(keyword),
        )

    def _fields(self, node: Node) -> list[FieldDeclaration]:
        return [
            FieldDeclaration(
                name=_name(one.children[1]), type=_type(one.children[2]), comment=self._comment_above(one.children[0])
            )
            for one in _children(node, "field")
        ]

    def _comment_above(self, keyword: Any) -> str:
        """The lines of comment that end right above a declaration."""
        found: list[str] = []
        line = _line(keyword) - 1
        while line in self._comments:
            found.insert(0, self._comments[line])
            line -= 1
        return "\n".join(found)


def _type(node: Any) -> FieldType:
    name, *inner = node.children
    return FieldType(name=_name(name), inner=_type(inner[0]) if inner else None)


def _children(node: Node, rule: str) -> Iterator[Node]:
    for one in node.children:
        if isinstance(one, Tree) and one.data == rule:
            yield one


def _parts(node: Any) -> list[Any]:
    """Its tokens and trees, and None where something optional is left out."""
    return list(node.children)


def _names(node: Any) -> list[Name]:
    return [_name(one) for one in node.children if one.type == "NAME"]


def _name(token: Any, *, quoted: bool = False) -> Name:
    text = str(token)
    return Name(text=text[1:-1] if quoted else text, line=_line(token), column=_column(token), length=len(text))


def _line(token: Any) -> int:
    return int(token.line)


def _column(token: Any) -> int:
    return int(token.column)


# ---------------------------------------------------------------- what the grammar does not allow


def _note(error: Any, text: str, problems: ProblemList) -> None:
    if isinstance(error, UnexpectedCharacters):
        where = _line(error), _column(error), 1
        found = f"there is `{text.splitlines()[_line(error) - 1][_column(error) - 1]}`"
    elif error.token.type == "$END":
        lines = text.rstrip().split("\n")
        where = len(lines), len(lines[-1]) + 1, 1
        found = "the file ends"
    else:
        where = _line(error), _column(error), len(error.token)
        found = f"there is `{error.token}`"
    problems.add_at(*where, f"Expected {_expected(error)}, and {found}. {_advice(error)}")


def _expected(error: Any) -> str:
    # The kinds of error have one or the other.
    given = [getattr(error, name, None) for name in ("accepts", "expected", "allowed")]
    allowed: Any = next((one for one in given if one), ())
    words = sorted(word for name, word in _WORDS.items() if name in allowed)
    return in_words(words, "or") if words else "something else"


def _advice(error: Any) -> str:
    """How the innermost construct that is open is written."""
    state: Any = error.state
    stack: list[Any] = getattr(state, "value_stack", [])
    for one in reversed(stack):
        if isinstance(one, Token) and one.type in _EXAMPLES:
            return _EXAMPLES[one.type]
    return f"A file holds models. {_EXAMPLES['MODEL']}"
