"""What machines are made of may stand in mixins and generic classes; what could not work is refused with a sentence."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import pytest

from durably import Caller, Context, Service, handler, models
from durably.errors import DefinitionError
from durably.models import (
    Machine,
    Model,
    Transition,
    TransitionContext,
    consumer,
    initial,
    transition,
)
from durably.testing import Harness

M = TypeVar("M", bound=Model)
F = TypeVar("F", bound=Model)
T = TypeVar("T", bound=Model)
HEARD: list[str] = []


class Renaming:
    """A mixin of any machine of documents: no machine itself."""

    @transition
    async def rename(self, ctx: TransitionContext, document: Draft, title: str) -> Draft:
        return Draft.of(document, title=title)

    @consumer(rename, name="Renamed")
    async def renamed(self, ctx: Context, document: Document, made: Transition) -> None:
        await ctx.run("hear", HEARD.append, f"{document.state} {made.name}")


class Publishing(Machine[M], Generic[M, F, T], abstract=True):
    """Of any model: from a first state to another."""

    @transition
    async def publish(self, ctx: TransitionContext, one: F, by: str) -> T:
        return self.published(one, by)

    def published(self, one: F, by: str) -> T:
        raise NotImplementedError

    def _publish(self) -> str:
        """A method of its own, which nothing hides."""
        return "own"


class Document(Model, prefix="doc"):
    title: str


class Draft(Document):
    pass


class Public(Document):
    by: str


class Documents(Renaming, Publishing[Document, Draft, Public]):
    @initial
    async def write(self, ctx: TransitionContext, title: str) -> Draft:
        return Draft(title=title)

    def published(self, one: Draft, by: str) -> Public:
        assert self._publish() == "own"
        return Public.of(one, by=by)


class Song(Model, prefix="song"):
    title: str


class Demo(Song):
    pass


class Single(Song):
    by: str


class Songs(Publishing[Song, Demo, Single]):
    @initial
    async def write(self, ctx: TransitionContext, title: str) -> Demo:
        return Demo(title=title)

    def published(self, one: Demo, by: str) -> Single:
        return Single.of(one, by=by)


class Desk(Service):
    def __init__(self, caller: Caller, songs: Songs) -> None:
        self.caller = caller
        self.songs = songs

    @handler
    async def sing(self, ctx: Context, title: str) -> list[str]:
        song, _ = await self.songs.write(title)
        _, made = await self.caller.machine(Songs).publish(song, by="me")
        return [made.triggered_by, *(one.title for one in await self.songs.find_all(Single))]


async def test_transitions_of_mixins_and_generic_classes_are_those_of_the_machine_that_has_them() -> None:
    async with Harness(Documents, Songs, consumers="inline") as app:
        document, _ = await app.machine(Documents).write("a")
        renamed, _ = await app.machine(Documents).rename(document, title="b")
        public, made = await app.machine(Documents).publish(renamed, by="me")
        assert (public, made.arguments) == (Public.of(renamed, by="me"), {"by": "me"})
        song, _ = await app.machine(Songs).write("c")
        assert isinstance((await app.machine(Songs).publish(song, by="me")).object, Single)
        assert HEARD == ["draft rename"]


async def test_a_dependency_may_call_machines_for_the_handler_that_runs() -> None:
    async with Harness(Desk, Songs) as app:
        assert await app.service(Desk).sing("la") == ["Desk/sing", "la"]


MODEL = """
class Thing(Model, prefix="thing"):
    size: int
class New(Thing): ...
class Old(Thing): ...
"""
MACHINE = f"""{MODEL}
class Things(Machine[Thing]):
    @initial
    async def make(self, ctx: TransitionContext) -> New | Old: ...
"""
QUERIES = ("find_one", "find_one_or_raise", "find_all", "count", "get_transition", "get_object_transitions", "get")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            'class Bad(Model, prefix="bad"):\n a_b: int\n aB: int',
            r"Bad\.aB is a field, and there is 'a_b' in the model already: in JSON and in a table they would be one",
        ),
        (f"{MODEL}class Big(Thing):\n Size: int", r"Big\.Size is a field, and there is 'size'"),
        (
            f"{MODEL}class Big(Thing):\n ab: int\nclass Huge(Thing):\n aB: int",
            r"Huge\.aB is a field, and there is 'ab'",
        ),
        (
            f"{MODEL}class Many(Fields):\n siZe: int\nclass Big(Many, Thing): ...",
            r"Big\.siZe is a field, and there is 'si",
        ),
        (f"{MODEL}class Big(Thing):\n Id: int", r"Big\.Id is a field, and every version has 'id' already"),
        (f"{MODEL}class new(Thing): ...", r"new is a state of Thing, and so is New: both are 'new' in JSON"),
        (
            f"{MACHINE}    @transition\n    async def age(self, ctx: C, one: New, a_b: int, aB: int) -> Old: ...",
            r"Things\.age has the parameters 'a_b' and 'aB', and both are 'aB' in JSON",
        ),
        (
            f"{MACHINE}    @initial\n    async def ma_ke(self, ctx: C) -> New: ...\n    maKe = initial(ma_ke.function)",
            r"Things has the transitions ma_ke and maKe, and both are 'maKe' on the wire",
        ),
        (
            f"{MACHINE}    @consumer(make, name='Made')\n    async def made(self, ctx: C, one: New, made: Any): ...",
            r"Things\.made takes New, and a consumer gets the object as it is by then, in any state\. Annotate Thing",
        ),
        (
            f"{MACHINE}    @consumer(make, name='Made')\n    async def made(self, ctx: C, one: Thing): ...",
            r"Things\.made does not take what a consumer gets: too many positional arguments\. Write `async def made",
        ),
        (
            f"{MACHINE}    @consumer(make, name='Hello World')\n    async def made(self): ...",
            "World'\\): a name is letters",
        ),
        (
            f"{MODEL}class Things(Machine[Thing]):\n    @initial\n    async def make(self, ctx: C) -> New: ...",
            r"No transition of Things leads to Old, from any object that there can be\. Add one, or remove the state",
        ),
        (  # Two states that lead to each other, and no way to them.
            (
                f"{MODEL}class Lost(Thing): ...\nclass Things(Machine[Thing]):\n"
                "    @initial\n    async def make(self, ctx: C) -> New: ...\n"
                "    @transition\n    async def lose(self, ctx: C, one: Old) -> Lost: ...\n"
                "    @transition\n    async def find(self, ctx: C, one: Lost) -> Old: ..."
            ),
            r"No transition of Things leads to Old, Lost,",
        ),
        (
            (
                f"{MODEL}class Things(Machine[Thing]):\n"
                "    @transition\n    async def age(self, ctx: C, one: New) -> Old: ..."
            ),
            r"Things has no @initial transition, so no object would ever be made\. Write `@initial async def",
        ),
        (
            f"{MODEL}class Older(Old): ...",
            r"Older subclasses Old, which is a state: one in Older would pass for one in ",
        ),
        ("class Thing(Model, prefix='tsn'): ...", r"Thing has the prefix 'tsn', which ids of transitions begin with"),
        ("class Things(Publishing): ...", r"Things does not say of which model it is a machine"),
        *[(f"{MACHINE}    def {one}(self): ...", rf"Things\.{one} has a name that every machine") for one in QUERIES],
        *[
            (
                f"{MACHINE}    @initial\n    async def {one}(self, ctx: C) -> New: ...",
                rf"Things\.{one} has a name that every",
            )
            for one in QUERIES
        ],
    ],
)
def test_what_could_not_be_told_apart_is_refused(source: str, told: str) -> None:
    names = {**vars(models), "C": TransitionContext, "Any": Any, "Publishing": Publishing}
    with pytest.raises(DefinitionError, match=told):
        exec(compile(source, "source", "exec", dont_inherit=True), names)


class Pay:
    pass


class CardPay(Pay):
    pass


@pytest.mark.parametrize("given", [Pay, CardPay])
def test_a_class_where_an_instance_is_meant_is_refused(given: type) -> None:
    with pytest.raises(DefinitionError, match=rf"the class {given.__name__} for Pay, .* factory\("):
        Harness(Songs, dependencies={Pay: given})
