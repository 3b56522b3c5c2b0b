"""`durably debug` and `durably export-test`: one invocation of a store, run along its journal here, at leisure.

The file of a store is only read, and may be in use meanwhile; or the server that runs on a store is asked. No action is
run and nothing is sent: the journal has the answers.
"""

from __future__ import annotations

import asyncio
import pdb
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import CodeType
from typing import Final
from urllib.parse import quote

import typer
from typing_extensions import override

from durably.actors.definition.binding import BoundActor
from durably.actors.values.durations import moment
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.cli.failures import CommandError
from durably.cli.loading import load_runtime
from durably.cli.operators.output import Format, print_result, talk
from durably.cli.operators.sources import Whom, server
from durably.cli.reading import store_file
from durably.configuration import Configuration, load_configuration
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError, UnreadableRecordError
from durably.runtime.clock import SystemClock
from durably.runtime.runtime import Runtime
from durably.runtime.supervision.contained_codec import contained_codec
from durably.storage.codec_marker import refuse_encoded
from durably.storage.connect import POSTGRES_PREFIXES
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.sqlite import SqliteStore
from durably.testing.replaying.continuing import Continued, bound_actors, continue_with
from durably.testing.replaying.export import journal_with_id
from durably.testing.replaying.journals import ExportedJournal, JournalFileError, decode_journal, write_journal
from durably.testing.replaying.replay import ReplayError

FAILED: Final = 3
"""What the process ends with where the code fails, or does not follow the journal."""

_TEST: Final = '''"""{target} ({id}) as it was {status} in {store} on {day}.

The file beside this one holds its arguments, answers and state as they are.
"""

from __future__ import annotations

from pathlib import Path

from durably.testing.replaying import continue_journal
from {module} import {name}

JOURNAL = Path(__file__).with_name("{file}")


def {function}() -> None:
    """The code follows its journal, and raises nothing in the advance after it."""
    continue_journal(JOURNAL, {expression})
'''


def debug(id: str, target: str | None, whom: Whom, *, with_pdb: bool) -> None:
    """Run the code of an invocation along its journal, in a debugger.

    Raises:
        CommandError: it cannot be run.
        typer.Exit: the code fails.
    """
    found = _found(id, target, whom)
    actors = bound_actors(found.runtime)
    debugger = Debugger() if with_pdb else None
    continued: Continued | None
    try:
        if debugger is None:
            continued = continue_with(found.journal, actors)
        else:
            debugger.stop_in(actors, found.journal)
            continued = debugger.runcall(continue_with, found.journal, actors)
    except ReplayError as error:
        if debugger is None or not debugger.was_quit:
            talk(str(error))
            raise typer.Exit(FAILED) from error
    except USER_ERRORS as error:
        let_signals_pass(error)
        traceback.print_exception(error)
        if debugger is not None:
            debugger.look_at(error)
        raise typer.Exit(FAILED) from error
    else:
        if continued is not None:  # None: the debugger was quit.
            talk(_told(found.journal, continued))


class Debugger(pdb.Pdb):
    """Python's own, which begins in the handler, and not in what runs it."""

    was_quit = False

    def stop_in(self, actors: Mapping[str, BoundActor], journal: ExportedJournal) -> None:
        """Let it stop at the first line of the handler's body."""
        actor = actors.get(journal.service)
        handler = None if actor is None else actor.handlers.get(journal.handler)
        code: CodeType | None = getattr(None if handler is None else handler.function, "__code__", None)
        if code is not None:
            lines = sorted({line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno})
            self.set_break(code.co_filename, lines[0] if lines else code.co_firstlineno, temporary=True)
        self.rcLines = ["continue"]

    def look_at(self, error: BaseException) -> None:
        """Stop where an error was raised."""
        self.reset()
        self.rcLines = []
        self.interaction(None, error.__traceback__)

    @override
    def set_quit(self) -> None:
        self.was_quit = True
        super().set_quit()


def export_test(id: str, target: str | None, whom: Whom, folder: Path, *, format: Format) -> None:
    """Write a test that runs the code of an invocation along its journal, and the journal beside it.

    Raises:
        CommandError: it cannot be written.
    """
    found = _found(id, target, whom)
    journal = found.journal
    module, _, attribute = found.target.partition(":")
    name = attribute.partition(".")[0]
    function = f"test_{_words(journal.service)}_{_words(journal.handler)}_goes_on_from_where_it_was"
    test = folder / f"test_{_words(journal.service)}_{_words(journal.handler)}_{journal.id[-8:].lower()}.py"
    if test.exists():
        raise CommandError(
            f"The test {test} is there already, and is left as it is. Delete it, or name another --output."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = write_journal(journal, folder)
        test.write_text(
            _TEST.format(
                target=journal.target, id=journal.id, status=journal.status, store=found.where, day=_today(),
                module=module, name=name, file=file.name, function=function,
                expression=attribute if found.is_instance else f"{attribute}()",
            ),
            "utf-8",
        )  # fmt: skip
    except OSError as error:
        raise CommandError(f"The test cannot be written to {folder}: {error.strerror or error}.") from error
    print_result(
        {"test": str(test), "journal": str(file)}, format, names=[str(test)],
        tell=lambda: typer.echo(f"{test} runs {journal.target} along {file.name}: python -m pytest {test}"),
    )  # fmt: skip


# ---------------------------------------------------------------- what both need


@dataclass(frozen=True, slots=True)
class Found:
    """A journal, and the runtime whose code is to run along it."""

    runtime: Runtime
    target: str
    where: str
    """The URL of the store, or the address of the server."""
    journal: ExportedJournal

    @property
    def is_instance(self) -> bool:
        """The target is the runtime itself, and not what makes it."""
        module, _, attribute = self.target.partition(":")
        return attrgetter(attribute)(import_module(module)) is self.runtime


def _found(id: str, target: str | None, whom: Whom) -> Found:
    configuration = load_configuration()
    target = target or (None if configuration.server is None else configuration.server.target)
    if target is None:
        raise CommandError(
            "Nothing says whose code is to run. Name the runtime, as in durably debug ID app:runtime, or target in "
            "[server] of durably.toml."
        )
    runtime = load_runtime(target)
    configured = None if configuration.store is None or whom.admin else configuration.store.url
    url = whom.store or configured
    if url is None or (whom.store is None and url.startswith((*POSTGRES_PREFIXES, "memory:"))):
        sent, where = asyncio.run(_ask(whom, configuration, runtime, id))
        return Found(runtime, target, where, sent)
    try:
        journal = asyncio.run(_read(store_file(url), runtime, id))
    except (StoreInUseError, StoreUnavailableError, DefinitionError, UnreadableRecordError) as error:
        raise CommandError(str(error)) from error
    if journal is None:
        raise CommandError(
            f"There is no journal of {id} in {url}: no such invocation is known, or its journal is no longer kept "
            "(journal_retention). durably invocations list --all shows what there is."
        )
    return Found(runtime, target, url, journal)


async def _read(file: SqliteStore, runtime: Runtime, id: str) -> ExportedJournal | None:
    await file.open_read_only()
    try:
        store: InspectableStore = file
        if runtime.codec is None:
            await refuse_encoded(file, "Runtime(codec=...)")
        else:
            decoded = EncodedStore(file, contained_codec(runtime.codec))
            await decoded.recognise_read_only()
            store = decoded
        return await journal_with_id(store, id)
    finally:
        await file.close()


async def _ask(whom: Whom, configuration: Configuration, runtime: Runtime, id: str) -> tuple[ExportedJournal, str]:
    """The journal, from the server that runs on its store, and the address of this."""
    async with server(whom, configuration) as running:
        answer = await running.ask("GET", f"/invocations/{quote(id, safe='')}/journal")
        content = answer.content
        if not answer.headers.get("content-type", "").startswith("application/json"):
            if runtime.codec is None:
                raise CommandError(
                    f"The values of {running.where} are encoded, and the runtime has no codec. Give it the one of the "
                    "server: Runtime(codec=...)."
                )
            try:
                content = contained_codec(runtime.codec).decode(content)
            except Exception as error:
                raise CommandError(
                    f"The journal of {id} at {running.where} cannot be decoded: {error}. Give the runtime the codec, "
                    "and the key, of the server."
                ) from error
        try:
            return decode_journal(content), running.where
        except JournalFileError as error:
            raise CommandError(f"{running.where} sent no journal that can be read: {error}") from error


def _told(journal: ExportedJournal, continued: Continued) -> str:
    steps = f"{continued.steps:,} recorded step{'' if continued.steps == 1 else 's'}"
    told = f"{journal.target} follows its {steps}"
    if continued.is_over:
        return f"{told}, and ends."
    return f"{told}, and waits for what these lines asked for: {', '.join(continued.waits_for) or 'nothing'}."


def _words(name: str) -> str:
    return re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower()


def _today() -> str:
    return moment(SystemClock().now()).date().isoformat()
