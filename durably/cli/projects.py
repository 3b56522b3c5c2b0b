"""`durably worker` and `durably main`: a project in two processes, one that owns the store and one that asks it.

The worker runs the classes, transitions and consumers among them, and lets calls in on this machine. Main is the
project's `main(client)`, such as a web server, whose client asks the worker over HTTP. `durably dev` has both in one
process. A `Runtime` in the place of a project is one without `main`.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from durably.actors.machines.project import Main, Project
from durably.cli.failures import CommandError
from durably.cli.loading import load_codec, load_program
from durably.cli.logs import LogLevel, configure_logs
from durably.cli.serve import fastest_loop, serve, serving
from durably.client import Client
from durably.configuration import ENVIRONMENT_VARIABLE, PRODUCTION, Configuration, Server, load_configuration, token_of
from durably.configuration import Project as ProjectSettings
from durably.errors import DefinitionError
from durably.runtime.runtime import Runtime
from durably.storage.connect import store_from_url
from durably.storage.introspection import InspectableStore

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where those on the same machine find what listens on all addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a command is about, on the store of its environment."""

    target: str
    runtime: Runtime
    main: Main | None
    store: str | None
    """The URL of the store. None: it is the one that the program gives its runtime."""


def configured(default_environment: str = PRODUCTION) -> Configuration:
    """What holds in this folder; the project's code finds the environment in `DURABLY_ENV`, too."""
    configuration = load_configuration(default_environment=default_environment)
    os.environ[ENVIRONMENT_VARIABLE] = configuration.environment
    return configuration


def program_of(target: str | None, configuration: Configuration) -> Program:
    """The program that is named, or that the configuration names.

    Raises:
        CommandError: it cannot be had, or its classes cannot run together.
    """
    named, loaded = _loaded(target, configuration)
    store = None if configuration.store is None else configuration.store.url
    try:
        if isinstance(loaded, Runtime):
            if store is not None:
                loaded.use_store(_opened_by(store, configuration))
            return Program(target=named, runtime=loaded, main=None, store=store)
        store = store or f"sqlite:///{configuration.environment}.db"
        return Program(target=named, runtime=_runtime_of(loaded, store, configuration), main=loaded.main, store=store)
    except DefinitionError as error:
        raise CommandError(str(error)) from error


def _loaded(target: str | None, configuration: Configuration) -> tuple[str, Project | Runtime]:
    named = target or _configured_target(configuration)
    if named is None:
        named = ProjectSettings().target
        if not Path("project.py").is_file():
            raise CommandError(
                f"There is no project in {Path.cwd()} yet: project.py would have it, with project = "
                "Project([...], main=main). `durably new` makes one; in durably.toml, [project] target names "
                "another place."
            )
    return named, load_program(named)


def _configured_target(configuration: Configuration) -> str | None:
    if configuration.project is not None:
        return configuration.project.target
    return None if configuration.server is None else configuration.server.target


def _opened_by(url: str, configuration: Configuration) -> InspectableStore:
    return store_from_url(url, checkpoints="own" if configuration.store is None else configuration.store.checkpoints)


def _runtime_of(project: Project, store: str, configuration: Configuration) -> Runtime:
    codec = None if configuration.store is None else configuration.store.codec
    return Runtime(
        _opened_by(store, configuration),
        project.actors,
        dependencies=project.dependencies,
        middleware=project.middleware,
        codec=None if codec is None else load_codec(codec),
    )


def run_worker(target: str | None) -> None:
    """Run the classes of a project until a signal comes.

    Raises:
        CommandError: it cannot be run.
    """
    configuration = configured()
    serve_program(program_of(target, configuration), configuration, None)


def serve_program(program: Program, configuration: Configuration, main: Main | None) -> None:
    """Serve what a command is about, with `main` beside it, until a signal comes.

    Raises:
        CommandError: it cannot be served.
    """
    settings = configuration.server or Server()
    configure_logs(LogLevel(settings.log_level), as_json=settings.json_logs)
    what = serving(
        configuration, target=program.target, host=None, port=settings.port, admin_port=None, store=None, server=None,
        tracing_endpoint=None,
    )  # fmt: skip
    serve(what, program.runtime, main)


def run_main(target: str | None) -> None:
    """Call the `main` of a project, with a client of its worker.

    Raises:
        CommandError: it cannot be called, or failed.
    """
    configuration = configured()
    named, loaded = _loaded(target, configuration)
    main = loaded.main if isinstance(loaded, Project) else None
    if main is None:
        raise CommandError(
            f"{named} has no main. Write `async def main(client: Caller) -> None`, and Project(main=main)."
        )
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        try:
            runner.run(_call(main, configuration))
        except KeyboardInterrupt:
            return
        except Exception as error:  # Of the user's code.
            traceback.print_exception(error)
            raise CommandError(f"main(client) of {named} failed: {error}") from error


async def _call(main: Main, configuration: Configuration) -> None:
    async with Client(url_of(configuration), token=token_of(configuration.ingress)) as client:
        await main(client)


def url_of(configuration: Configuration) -> str:
    """Where the worker of this environment answers."""
    if configuration.ingress is not None and configuration.ingress.url is not None:
        return configuration.ingress.url
    settings = configuration.server or Server()
    host = _EVERYWHERE.get(settings.host, settings.host)
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"
