"""Events that no handler of the code gets: those that it publishes itself, and those that wait in a store.

Neither breaks anything, since readers over HTTP and ordinary code hear of events too. What code publishes is read from
the source of its classes, as far as `ctx.publish(...)` names the class of the event there; the rest is not known.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import durably
from durably.actors.definition.binding import BoundActor
from durably.actors.event_values import event_class
from durably.actors.subscriptions import Subscription
from durably.errors import DefinitionError
from durably.runtime.lifecycle.subscriptions import SubscriptionRow, subscription_name
from durably.storage.introspection import Introspection
from durably.storage.records import SUBSCRIPTIONS, EventQuery

_PORTION = 1_000
_LIBRARY = Path(durably.__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Unhandled:
    """A kind of event, or of transition, that no handler gets."""

    event: str
    """Its name; of a transition as on the wire."""
    published_by: str | None = None
    """The method that publishes it; None: it waits in the store."""
    stream: str | None = None
    """Where such events wait: a stream with its cluster, or the name of a machine."""
    waiting: int = 0
    """So many come next for a subscription or consumer, and are passed over."""


async def unhandled(store: Introspection, actors: Mapping[str, BoundActor]) -> list[Unhandled]:
    """What the code publishes and does not handle, then what waits in the store and will be passed over.

    Raises:
        StoreUnavailableError: the store cannot be read.
    """
    declared = {
        subscription_name(handler): handler.subscription
        for actor in actors.values()
        for handler in actor.handlers.values()
        if handler.subscription is not None
    }
    found = [*_published(actors.values(), declared.values())]
    return found + [one async for one in _waiting(store, actors, declared)]


def _published(actors: Iterable[BoundActor], subscriptions: Iterable[Subscription]) -> Iterator[Unhandled]:
    heard = {name for one in subscriptions if one.routing is not None for name in one.names}
    for actor in actors:
        for method in _methods(actor.definition.actor):
            for name in dict.fromkeys(_published_in(method)):
                if name not in heard:
                    yield Unhandled(event=name, published_by=f"{actor.definition.name}.{method.__name__}")


def _methods(cls: type) -> Iterator[Callable[..., Any]]:
    """The functions in a class that users have written, those of its handlers, transitions and consumers included."""
    for base in cls.__mro__:
        for name, member in vars(base).items():
            function: object = getattr(member, "function", member)
            if inspect.getattr_static(cls, name) is member and inspect.isfunction(function):
                written: object = inspect.unwrap(function)
                if inspect.isfunction(written) and _LIBRARY not in Path(written.__code__.co_filename).parents:
                    yield written


def _published_in(method: Callable[..., Any]) -> Iterator[str]:
    """The names of events of which `ctx.publish(...)` is given new instances."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
        known = {**inspect.getmodule(method).__dict__, **inspect.getclosurevars(method).nonlocals}
    except (OSError, TypeError, SyntaxError, AttributeError, ValueError):
        return  # There is no source to be read.
    contexts = {one.name for one in inspect.signature(method).parameters.values() if _is_context(one)}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=context), attr="publish")) if context in contexts:
                for argument in node.args:
                    match argument:
                        case ast.Call(func=ast.Name(id=name)):
                            try:
                                yield event_class(known.get(name)).name
                            except DefinitionError:
                                continue  # It is a function that makes one.
                        case _:
                            continue
            case _:
                continue


def _is_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return parameter.name in ("ctx", "context") or written.endswith("Context")


async def _waiting(
    store: Introspection, actors: Mapping[str, BoundActor], declared: Mapping[str, Subscription]
) -> AsyncIterator[Unhandled]:
    """What comes next for subscriptions of the code, and none of its stream takes."""
    behind: dict[str, dict[str, int]] = {}
    for stored in await store.objects([SUBSCRIPTIONS]):
        for name, value in stored.state.items():
            if name in declared:
                try:
                    row = msgspec.json.decode(value, type=SubscriptionRow)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue  # It begins anew.
                behind.setdefault(row.stream, {})[name] = row.position
    for stream, places in sorted(behind.items()):
        machine = actors.get(stream)
        known: Collection[str] = () if machine is None else machine.handlers
        passed = Counter[str]()
        after = min(places.values())
        while (answer := await store.events(EventQuery(stream=stream, after=after, limit=_PORTION))).last is not None:
            after = answer.last
            passed.update(
                one.name
                for one in answer.events
                if one.name not in known and not any(declared[name].wants(one.name) for name in places)
            )
        for event, waiting in sorted(passed.items()):
            yield Unhandled(event=event, stream=stream, waiting=waiting)
