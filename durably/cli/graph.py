"""`durably graph`: a picture of a state machine, with how many objects of a store are in each state."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import typer

from durably.actors.machines.info import info_of
from durably.actors.machines.model import state_name, states_of
from durably.actors.protocol.commands import FindObjects
from durably.cli.failures import CommandError
from durably.cli.loading import load_machine
from durably.cli.reading import opened_to_read, store_file
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.graphs import StateGraph, graph_of_machine, to_mermaid, to_svg
from durably.queries import TableQuery
from durably.runtime.registry.questions import answer

SUFFIX = ".rst"


class Picture(StrEnum):
    """What a graph is written as."""

    MERMAID = "mermaid"
    SVG = "svg"


def graph(target: str, picture: Picture, *, store: str | None, codec: str | None) -> None:
    """Print the picture of a class of transitions, or of a model in a file.

    Raises:
        CommandError: there is none, or the store cannot be read.
    """
    path, _, model = target.partition(":")
    if path.endswith(SUFFIX):
        if store is not None:
            raise CommandError(
                f"{path} says nothing of what is in a store. Name the class of transitions for --store: module:Orders."
            )
        drawn = _graph_of_file(Path(path), model)
    else:
        machine = load_machine(target)
        drawn = graph_of_machine(machine)
        if store is not None:
            drawn = replace(drawn, counts=_counts(machine, store, codec))
    typer.echo(to_svg(drawn) if picture is Picture.SVG else to_mermaid(drawn), nl=False)


def _graph_of_file(path: Path, model: str) -> StateGraph:
    try:
        from durably.model_files import ModelFileError, graph_of_model, read_file
    except ModuleNotFoundError as error:
        raise CommandError(str(error)) from None
    try:
        models = {one.name.text: one for one in read_file(path).models}
    except (ModelFileError, OSError) as error:
        raise CommandError(str(error)) from None
    if not model and len(models) == 1:
        (model,) = models
    if model not in models:
        known = f"the models {', '.join(models)}" if models else "no models"
        example = next(iter(models), "Order")
        raise CommandError(f"{path} has {known}. Name one of them: durably graph {path}:{example}.")
    return graph_of_model(models[model])


def _counts(machine: type, url: str, codec: str | None) -> Mapping[str, int]:
    """How many objects are in each state, by the name of its class."""
    try:
        return asyncio.run(_counted(machine, url, codec))
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error


async def _counted(machine: type, url: str, codec: str | None) -> Mapping[str, int]:
    info = info_of(machine)
    async with opened_to_read(store_file(url), codec) as store:
        return {
            state.__name__: int(
                await answer(store, FindObjects(TableQuery(info.table, (state_name(state),)), counts=True))
            )
            for state in states_of(info.model)
        }
