"""`Events`: what handlers publish becomes part of a stream, in the transition that publishes it (rule P1)."""

from __future__ import annotations

from collections.abc import Callable

from durably.actors.event_values import PUBLISHED_STREAM
from durably.actors.protocol.commands import Publish
from durably.runtime.commit.transition import Transition
from durably.runtime.settings import Settings

DEAD_LETTERS = "(dead letters)"
"""The stream of events that could not be delivered; the key of each is the name of the subscription."""


class Events:
    """The streams of one incarnation."""

    def __init__(self, settings: Settings) -> None:
        self.on_published: Callable[[str], None] = _no_one_listens
        """Hears the stream of each event, when that is in the log."""
        self.on_kept: Callable[[str, int], None] = _no_one_counts
        """Hears the same, with the size of the event in bytes."""
        self._settings = settings

    def publish(self, transition: Transition, event: Publish) -> None:
        stream = self.full_name(event.stream)
        transition.publish(stream, event.key, event.name, event.id, event.at, event.value)
        self.on_published(stream)
        self.on_kept(stream, len(event.value))

    def full_name(self, stream: str) -> str:
        """A stream as the store knows it: of a user's events with its cluster, of a machine as it is."""
        if not stream.startswith(PUBLISHED_STREAM):
            return stream
        return full_stream(self._settings, stream.removeprefix(PUBLISHED_STREAM))


def full_stream(settings: Settings, stream: str) -> str:
    """The stream of this name, or the default one, in the cluster of the runtime."""
    return f"{settings.event_cluster}{PUBLISHED_STREAM}{stream or settings.event_stream}"


def _no_one_counts(stream: str, size_bytes: int) -> None:
    raise AssertionError("an event was published before the machine was put together")


def _no_one_listens(stream: str) -> None:
    raise AssertionError("an event was published before the machine was put together")
