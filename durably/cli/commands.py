"""The commands and their options; what each does stands in its own file. A `CommandError` becomes a sentence here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from durably.cli.demo import demo
from durably.cli.export_journals import export
from durably.cli.failures import CommandError
from durably.cli.logs import LogLevel, configure_logs
from durably.cli.recode import decrypt, encrypt
from durably.cli.serve import DEFAULT_ADMIN_PORT, DEFAULT_HOST, DEFAULT_PORT, DEFAULT_SERVER, serve
from durably.cli.servers.server import ServerName

application = typer.Typer(
    name="durably", help="Durable virtual objects for asyncio.", no_args_is_help=True, pretty_exceptions_enable=False
)


def run() -> None:
    """Run the command that the arguments name."""
    try:
        application()
    except CommandError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="bold red", markup=False, highlight=False)
        raise SystemExit(error.status) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"durably {_version()}")
        raise typer.Exit


def _version() -> str:
    try:
        return installed_version("durably")
    except PackageNotFoundError:
        return "(from a source tree, not installed)"


@application.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Durable virtual objects for asyncio."""


@application.command("serve")
def serve_command(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:ATTRIBUTE", help="A Runtime, or a function without parameters that makes one."),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 takes a free one.")
    ] = DEFAULT_PORT,
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="The port for operators, on this machine only; 0 takes a free one.",
            show_default=str(DEFAULT_ADMIN_PORT),
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="A store instead of the runtime's own, such as sqlite:///app.db or memory:.")
    ] = None,
    server: Annotated[ServerName, typer.Option(help="The HTTP server in front of it.")] = DEFAULT_SERVER,
    log_level: Annotated[LogLevel, typer.Option(case_sensitive=False, help="What to log at least.")] = LogLevel.INFO,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log one JSON object per line.")] = False,
) -> None:
    """Serve a runtime over HTTP until SIGTERM or Ctrl-C."""
    configure_logs(log_level, as_json=json_logs)
    serve(target, host=host, port=port, admin_port=admin_port, store=store, server=server)


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write the journals of what is under way, for tests that replay them (durably.testing.replaying).

    Only invocations that have not ended have a journal. The store is only read, and may be in use meanwhile.
    The files hold arguments, answers and state as they are: treat them as you treat the store.
    """
    export(store, output, target=target, limit=limit, codec=codec, as_json=as_json)


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write all values of a store anew with a codec, such as AesGcmCodec: to encrypt it, or to retire an old key.

    They go into a second file, which is compared with the first and takes its place at the end, all at once. Backups
    that were made before stay as they are.
    """
    encrypt(store, codec, old_codec=old_codec, as_json=as_json)


@application.command("decrypt")
def decrypt_command(
    store: Annotated[str, typer.Option(help="The store, such as sqlite:///app.db. No runtime may run on it.")],
    codec: Annotated[
        str, typer.Option(metavar="MODULE:ATTRIBUTE", help="The codec that reads it, or a function that makes it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write all values of a store anew in plain, in the same way."""
    decrypt(store, codec, as_json=as_json)
