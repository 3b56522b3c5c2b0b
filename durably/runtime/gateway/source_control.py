"""`SourceState`: what operators see of a source of records; and which handler gets what is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from durably.actors.actor import Actor
from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.errors import DefinitionError
from durably.runtime.engine.engine import Engine
from durably.runtime.lifecycle.sources import RunningFeed, SourceStatus
from durably.sources import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A source that this runtime reads, as it stands now."""

    name: str
    """What the verbs of a `Runtime` take."""
    handler: str
    """Who gets its records, as `Account/book`."""
    status: SourceStatus
    positions: Mapping[str, int]
    """For each partition, where its next record may be."""
    behind: int | None
    """So many records have not become messages, as the source last knew it; None: it does not tell."""
    in_flight: int
    """So many messages of it wait or run, as far as this process has accepted them; those behind paused ones do not
    count."""
    reason: str | None
    """Why it waits for a person."""
    failure: str | None
    """What it raised, if it has given nothing since."""


async def sources_of(engine: Engine) -> list[SourceState]:
    """All sources, by name."""
    return sorted(map(_described, await engine.parts.sources.known()), key=lambda one: one.name)


def fed_handlers(feeds: Sequence[Feed], actors: Mapping[str, BoundActor]) -> Sequence[tuple[Feed, BoundActorHandler]]:
    """Each feed with its handler.

    Raises:
        DefinitionError: one has none, or two have one name.
    """
    for feed in feeds:
        if not isinstance(cast("object", feed), Feed):
            raise DefinitionError(f"Runtime(sources=...) takes Feed(source, Account.book) and the like, not {feed!r}.")
    names = [feed.name for feed in feeds]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"Two feeds are named {name!r}, and keep one position. Give one another name=.")
    return [(feed, _fed(feed, actors)) for feed in feeds]


def _fed(feed: Feed, actors: Mapping[str, BoundActor]) -> BoundActorHandler:
    owner = cast("type[Actor]", feed.to.owner)
    having = [one for one in actors.values() if issubclass(one.definition.actor, owner)]
    exact = [one for one in having if one.definition.actor is owner] or having
    if len(exact) != 1:
        classes = ", ".join(one.definition.name for one in exact) or "none"
        raise DefinitionError(
            f"The feed {feed.name!r} goes to {feed.to}, and the runtime has {classes} of that class. Give it one."
        )
    found = exact[0].handlers[feed.to.name]
    if found.kind not in ("service", "exclusive"):
        raise DefinitionError(
            f"The feed {feed.name!r} goes to {feed.to}, which is {found.kind}. Records come in order only to an "
            "exclusive handler of a VirtualObject; a handler of a Service takes them in any order."
        )
    return found


def _described(one: RunningFeed) -> SourceState:
    return SourceState(
        name=one.name,
        handler=f"{one.handler.service}/{one.handler.name}",
        status=one.row.status,
        positions=one.row.positions,
        behind=one.behind,
        in_flight=one.in_flight.counted,
        reason=one.row.reason,
        failure=one.failure,
    )
