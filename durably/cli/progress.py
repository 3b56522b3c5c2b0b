"""Bars on stderr that tell how far a long command has come, as long as stderr is a terminal."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

S = TypeVar("S", bound=StrEnum, contravariant=True)


class Progressed(Protocol[S]):
    """Is told how far a stage has come."""

    def __call__(self, stage: S, done: int, total: int, /) -> None: ...


@contextmanager
def bars_of(stages: Mapping[S, str]) -> Generator[Progressed[S]]:
    """A bar for each stage that has begun, until the block ends."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        tasks = {stage: bars.add_task(name, total=None, visible=False) for stage, name in stages.items()}

        def progressed(stage: S, done: int, total: int, /) -> None:
            bars.update(tasks[stage], completed=done, total=total, visible=True)

        yield progressed
