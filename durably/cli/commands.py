"""The commands and their options; what each does stands in its own file. A `CommandError` becomes a sentence here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from _durably_command import print_version
from durably.cli.check import check
from durably.cli.configuring import show_configuration
from durably.cli.demo import demo
from durably.cli.dev import develop
from durably.cli.doctor import doctor
from durably.cli.export_journals import export
from durably.cli.failures import CommandError
from durably.cli.generate import DEFAULT_FOLDER, generate_modules
from durably.cli.graph import Picture, graph
from durably.cli.journals import debug, export_test
from durably.cli.logs import LogLevel, configure_logs
from durably.cli.migrate import migrate
from durably.cli.move import move_store
from durably.cli.new import make_project
from durably.cli.operators.commands import (
    AdminOption,
    FormatBesideFolderOption,
    FormatOption,
    JsonOption,
    add_to,
    format_of,
)
from durably.cli.operators.output import Format
from durably.cli.operators.sources import Whom
from durably.cli.output_failures import output_failures_told
from durably.cli.projects import run_main, run_worker
from durably.cli.recode import decrypt, encrypt
from durably.cli.serve import serve, serving
from durably.cli.serve_restate import RESTATE_PORT, on_restate_as_told, serve_on_restate
from durably.cli.servers.server import ServerName
from durably.cli.transfer import back_up_all, export_all, import_all
from durably.configuration import PRODUCTION, Admin, Server, load_configuration
from durably.errors import ConfigurationError

_server, _admin = Server(), Admin()
application = typer.Typer(
    name="durably",
    help="Durable virtual objects for asyncio.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command that the arguments name."""
    with output_failures_told():
        _run()


def _run() -> None:
    try:
        application(prog_name="durably")
    except (CommandError, ConfigurationError) as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="bold red", markup=False, highlight=False)
        raise SystemExit(getattr(error, "status", CommandError.status)) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        print_version()
        raise typer.Exit


@application.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Durable virtual objects for asyncio. Without a command: durably dev."""
    if context.invoked_subcommand is None:
        develop(None, reload=True)


@application.command("serve")
def serve_command(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:ATTRIBUTE",
            help="A Runtime, or a function without parameters that makes one; else the target of durably.toml.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.", show_default=_server.host)] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="The port to listen on; 0 takes a free one.", show_default=str(_server.port)
        ),
    ] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="The port for operators, on this machine only; 0 takes a free one.",
            show_default=str(_admin.port),
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="A store instead of the runtime's own, such as sqlite:///app.db or memory:.")
    ] = None,
    server: Annotated[
        ServerName | None, typer.Option(help="The HTTP server in front of it.", show_default=_server.http_server)
    ] = None,
    tracing_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A collector of OpenTelemetry for traces, such as http://localhost:4317.",
            show_default="[tracing] of durably.toml, or OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ] = None,
    suspend_after: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long an attempt that waits stays in memory; 0: it leaves at once, and is replayed.",
            show_default="as the runtime says, else while there is room",
        ),
    ] = None,
    standby: Annotated[
        bool,
        typer.Option("--standby", help="Wait while another process owns the store, and take over when it is gone."),
    ] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(case_sensitive=False, help="What to log at least.", show_default=_server.log_level),
    ] = None,
    json_logs: Annotated[
        bool | None, typer.Option("--json-logs/--no-json-logs", help="Log one JSON object per line.")
    ] = None,
) -> None:
    """Serve a runtime over HTTP until SIGTERM or Ctrl-C.

    What no option says, durably.toml says, or an environment variable: see durably config show.
    """
    configuration = load_configuration()
    settings = configuration.server or _server
    configure_logs(
        LogLevel(settings.log_level) if log_level is None else log_level,
        as_json=settings.json_logs if json_logs is None else json_logs,
    )
    serve(
        serving(
            configuration,
            target=target,
            host=host,
            port=port,
            admin_port=admin_port,
            store=store,
            server=server,
            tracing_endpoint=tracing_endpoint,
            suspend_after_seconds=suspend_after,
            is_standby=standby,
        )
    )


add_to(application)
config = typer.Typer(help="What durably.toml and the environment variables say.", no_args_is_help=True)
application.add_typer(config, name="config")


@config.command("show")
def config_show_command(
    environment: Annotated[
        str | None, typer.Option("--env", help="The environment, instead of DURABLY_ENV.", show_default=PRODUCTION)
    ] = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Tell each value of the configuration and where it came from: the file, a variable, or the default."""
    show_configuration(environment, format=format_of(output, as_json))


@application.command("serve-restate")
def serve_restate_command(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:ATTRIBUTE]",
            help="A durably.restate.app(...), a list of classes of actors, or a function that returns one of them. "
            "Without it, the target of durably.toml.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.", show_default=_server.host)] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="The port to listen on; 0 takes a free one.", show_default=str(RESTATE_PORT)
        ),
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Register it at the admin API of a Restate cluster: http://127.0.0.1:9070."),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where Restate finds it.", show_default="where it listens"),
    ] = None,
    drain: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long a stop lets attempts go on.")] = 30,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Register without asking.")] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(case_sensitive=False, help="What to log at least.", show_default=_server.log_level),
    ] = None,
    json_logs: Annotated[
        bool | None, typer.Option("--json-logs/--no-json-logs", help="Log one JSON object per line.")
    ] = None,
) -> None:
    """Serve classes of actors to a Restate cluster until SIGTERM or Ctrl-C."""
    configuration = load_configuration()
    settings = configuration.server or _server
    configure_logs(
        LogLevel(settings.log_level) if log_level is None else log_level,
        as_json=settings.json_logs if json_logs is None else json_logs,
    )
    serve_on_restate(
        on_restate_as_told(
            configuration,
            target,
            host=host,
            port=port,
            register=register,
            advertised=advertise,
            drain_seconds=drain,
            yes=yes,
        )
    )


@application.command("demo")
def demo_command(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the database and the ledger in ./durably-demo.")] = False,
) -> None:
    """Show a checkout that survives kill -9: a real server, a real crash, one payment."""
    demo(keep=keep)


@application.command("export-journals")
def export_journals_command(
    store: Annotated[str, typer.Option(help="The store to read, such as sqlite:///app.db.")],
    output: Annotated[Path, typer.Option(file_okay=False, help="The folder to write to; it is made if need be.")],
    target: Annotated[
        str | None, typer.Option(help="Only these: Service, Service/handler, Object/key or Object/key/handler.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Export at most so many, the oldest first.")] = None,
    codec: Annotated[
        str | None,
        typer.Option(metavar="MODULE:ATTRIBUTE", help="The codec of the store, or a function that makes it."),
    ] = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="What is kept of invocations that have ended (journal_retention), instead.")
    ] = False,
    format: FormatBesideFolderOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write the journals of what is under way, for tests that replay them (durably.testing.replaying).

    With --ended, those of what has ended, for people to look at. The store is only read, and may be in use meanwhile.
    The files hold arguments, answers and state as they are: treat them as you treat the store.
    """
    export(store, output, target=target, limit=limit, codec=codec, format=format_of(format, as_json), ended=ended)


_StoreOption = Annotated[
    str | None, typer.Option(help="The store, such as sqlite:///app.db.", show_default="[store] of durably.toml")
]


@application.command("backup")
def backup_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The new file, such as app-monday.db, in a folder that is there.")
    ],
    store: _StoreOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Copy a store to a new file, as of one moment. It may be in use meanwhile.

    The copy is a store as well: to restore it, stop what runs, and put it in the place of the other.
    """
    back_up_all(file, store, format=format_of(output, as_json))


@application.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; gzipped if its name ends with .gz.")],
    store: _StoreOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write all that a store holds as lines of JSON, which any version from this one on imports.

    It may be in use meanwhile. The values are in it as they are stored: treat the file as you treat the store.
    """
    export_all(file, store, format=format_of(output, as_json))


@application.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What durably export has written.")],
    store: _StoreOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Make a new store of an exported one. There must be none yet; what is not whole is not imported."""
    import_all(file, store, format=format_of(output, as_json))


_TargetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODULE:ATTRIBUTE]",
        help="The Runtime with the code, or a function without parameters that makes one.",
        show_default="target in [server] of durably.toml",
    ),
]


@application.command("debug")
def debug_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of an invocation: inv_1…")],
    target: _TargetArgument = None,
    admin: AdminOption = None,
    store: _StoreOption = None,
    with_pdb: Annotated[
        bool, typer.Option("--pdb/--no-pdb", help="Stop in the handler; without, at breakpoint() and those of an IDE.")
    ] = True,
) -> None:
    """Run the code of one invocation along its journal, from its first line to where it waits or fails.

    For as long as you look: nothing waits for it, no action is run and nothing is sent. The file of a store is only
    read, and may be in use. With --admin, or a store in PostgreSQL, the server that runs is asked for the journal. Ends
    with 3 where the code fails, or does not follow the journal.
    """
    debug(id, target, Whom(admin=admin, store=store), with_pdb=with_pdb)


@application.command("export-test")
def export_test_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of an invocation: inv_1…")],
    target: _TargetArgument = None,
    admin: AdminOption = None,
    store: _StoreOption = None,
    output: Annotated[
        Path, typer.Option(file_okay=False, help="The folder to write to; it is made if need be.")
    ] = Path("tests"),
    format: FormatBesideFolderOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write a pytest file that runs the code of one invocation along its journal, as durably debug does.

    It fails as long as the code fails there. The journal beside it holds arguments, answers and state as they are.
    """
    export_test(id, target, Whom(admin=admin, store=store), output, format=format_of(format, as_json))


@application.command("doctor")
def doctor_command(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The store to examine, such as sqlite:///app.db.")],
    codec: Annotated[
        str | None,
        typer.Option(metavar="MODULE:ATTRIBUTE", help="The codec of the store, or a function that makes it."),
    ] = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Check that a store is sound, and that nothing in it is stuck that could go on.

    The store is only read, and may be in use meanwhile. The command ends with 0 if nothing is wrong, with 3 if
    something is, and with 1 if the store cannot be examined. What waits for a person is told, and is not wrong.
    """
    doctor(store, codec=codec, format=format_of(output, as_json))


@application.command("check")
def check_command(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:ATTRIBUTE", help="A Runtime, or a function without parameters that makes one."),
    ],
    store: Annotated[str, typer.Option(help="The store to check, such as sqlite:///app.db; it is only read.")],
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Tell what would break if this code went on with a store, before it is deployed.

    Replays every open journal, and decodes the state of every object after its migrations. No action is run, and the
    store may be in use. Ends with 0 if nothing would break, 3 if something would, and 1 if that cannot be found out.
    """
    check(target, store, format=format_of(output, as_json))


@application.command("generate")
def generate_command(
    folder: Annotated[
        Path, typer.Argument(file_okay=False, help="The folder that the .rst files of models are in.")
    ] = DEFAULT_FOLDER,
) -> None:
    """Write a typed Python module for each model in the .rst files of a folder, beside the files.

    A module that is right already is not touched, and if a file is not right, nothing is written.
    """
    generate_modules(folder)


_TARGET = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:ATTRIBUTE",
        help="A durably.models.Project or a Runtime, or a function without parameters that makes one.",
        show_default="that of durably.toml, else project:project",
    ),
]


@application.command("new")
def new_command(
    folder: Annotated[
        Path, typer.Argument(file_okay=False, help="The folder to make it in; nothing may be in it.")
    ] = Path(),
    models: Annotated[
        bool, typer.Option("--models", help="With state machines in an .rst file, instead of virtual objects.")
    ] = False,
) -> None:
    """Make a project that runs and tests at once, with a README that says how."""
    make_project(folder, models=models)


@application.command("dev")
def dev_command(
    target: _TARGET = None,
    reload: Annotated[bool, typer.Option(help="Start again when a file of the project changes.")] = True,
) -> None:
    """Run a project while you write it: generate, migrate, its worker and its main, again at each change.

    The environment is development, unless DURABLY_ENV says otherwise. Bare `durably` does the same.
    """
    develop(target, reload=reload)


@application.command("worker")
def worker_command(target: _TARGET = None) -> None:
    """Run the transitions and consumers of a project, and let calls in on this machine, until SIGTERM or Ctrl-C."""
    run_worker(target)


@application.command("main")
def main_command(target: _TARGET = None) -> None:
    """Call main(client) of a project, whose client asks the worker over HTTP."""
    run_main(target)


@application.command("migrate")
def migrate_command(
    target: _TARGET = None,
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Drop fields that the states have no longer.")
    ] = False,
) -> None:
    """Make and alter the tables of a project's models. Ends with 1, and changes nothing, where something would be lost.

    The store is that of the environment, DURABLY_ENV, and no runtime may run on it.
    """
    migrate(target, allow_loss=allow_loss)


@application.command("graph")
def graph_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:MACHINE", help="A class of transitions; or a file of models, Order.rst or Shop.rst:Order."
        ),
    ],
    output: Annotated[Picture, typer.Option("--output", "-o", help="What to write it as.")] = Picture.MERMAID,
    store: Annotated[
        str | None, typer.Option(help="A store, such as sqlite:///app.db: how many of its objects are in each state.")
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(metavar="MODULE:ATTRIBUTE", help="The codec of the store, or a function that makes it."),
    ] = None,
) -> None:
    """Print a picture of a state machine: its states, and the transitions between them.

    The store is only read, and may be in use meanwhile.
    """
    graph(target, output, store=store, codec=codec)


@application.command("encrypt")
def encrypt_command(
    store: Annotated[str, typer.Option(help="The store, such as sqlite:///app.db. No runtime may run on it.")],
    codec: Annotated[
        str, typer.Option(metavar="MODULE:ATTRIBUTE", help="The codec to write with, or a function that makes it.")
    ],
    old_codec: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE",
            help="The codec that reads what is there, if the new one does not. What is in plain needs none.",
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write all values of a store anew with a codec, such as AesGcmCodec: to encrypt it, or to retire an old key.

    They go into a second file, which is compared with the first and takes its place at the end, all at once. Backups
    that were made before stay as they are.
    """
    encrypt(store, codec, old_codec=old_codec, format=format_of(output, as_json))


@application.command("move")
def move_command(
    source: Annotated[str, typer.Argument(help="The store, such as sqlite:///app.db. No runtime may run on it.")],
    target: Annotated[str, typer.Argument(help="Where it goes, such as postgresql://user:password@host/database.")],
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Move a store from a SQLite file to PostgreSQL, with everything that is under way.

    All rows are read back, counted and hashed. A move that was cut off goes on where it was when it is run again. The
    file stays as it is.
    """
    move_store(source, target, format=format_of(output, as_json))


@application.command("decrypt")
def decrypt_command(
    store: Annotated[str, typer.Option(help="The store, such as sqlite:///app.db. No runtime may run on it.")],
    codec: Annotated[
        str, typer.Option(metavar="MODULE:ATTRIBUTE", help="The codec that reads it, or a function that makes it.")
    ],
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write all values of a store anew in plain, in the same way."""
    decrypt(store, codec, format=format_of(output, as_json))
