"""The operators' commands and their options, as groups that `durably.cli.commands` takes up."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from durably.cli.operators.invocations import (
    STATUSES,
    Act,
    act_on_invocations,
    describe_invocation,
    list_invocations,
    show_journal,
)
from durably.cli.operators.output import Format
from durably.cli.operators.services import (
    ask_in_sql,
    describe_service,
    list_deployments,
    list_services,
    show_status,
    tell_why,
)
from durably.cli.operators.sources import Whom
from durably.cli.operators.states import clear_state, edit_state, get_state, patch_state

AdminOption = Annotated[
    str | None,
    typer.Option("--admin", metavar="URL", help="The admin port to ask, instead of durably.toml's or port 9070."),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="The store to read instead of asking a server, such as sqlite:///app.db."),
]
CodecOption = Annotated[
    str | None,
    typer.Option("--codec", metavar="MODULE:ATTRIBUTE", help="The codec of the store, or a function that makes it."),
]
FormatOption = Annotated[Format, typer.Option("--output", "-o", help="What to print.")]
FormatBesideFolderOption = Annotated[Format, typer.Option("--format", "-o", help="What to print.")]
"""Where `--output` is the folder that files are written to."""
JsonOption = Annotated[bool, typer.Option("--json", help="The same as -o json.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Ask again and again, until Ctrl-C.")]
EveryOption = Annotated[float, typer.Option("--interval", "-n", min=0.1, help="With --watch: every so many seconds.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of an invocation: inv_1…")]
NamesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="WHAT...", help="Ids, or targets: Service, Service/handler, Object/key, Object/key/handler."
    ),
]
ObjectArgument = Annotated[str, typer.Argument(metavar="OBJECT", help="Object, or Object/key.")]
KeyArgument = Annotated[str | None, typer.Argument(metavar="KEY", help="The key, if it is not in the first.")]

invocations: Final = typer.Typer(
    help="What is under way: look at it, cancel it, pause it, and so on.", no_args_is_help=True
)
services: Final = typer.Typer(help="The services and objects that run.", no_args_is_help=True)


def format_of(format: Format, as_json: bool) -> Format:
    """What the two options say together."""
    return Format.JSON if as_json else format


def _every(watch: bool, interval: float) -> float | None:
    return interval if watch else None


# ---------------------------------------------------------------- invocations


@invocations.command("list")
def list_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WHAT]...", help="Only these: ids, or targets as in Cart/mary. Without: all."),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", help="Only those that stand so.", autocompletion=lambda: STATUSES),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest.")] = 100,
    watch: WatchOption = False,
    interval: EveryOption = 1.0,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List invocations, the newest first: those that have not ended, unless you say more."""
    list_invocations(
        names or [], Whom(admin=admin, store=store, codec=codec), format_of(output, as_json), statuses=status or [],
        everything=everything, limit=limit, every_seconds=_every(watch, interval),
    )  # fmt: skip


@invocations.command("describe")
def describe_command(
    id: IdArgument,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Tell all that is known of an invocation: where it stands, what it waits for, its journal."""
    describe_invocation(id, Whom(admin=admin, store=store, codec=codec), format_of(output, as_json))


_ACTS: Final = {
    Act.CANCEL: "Cancel invocations: their handlers get asyncio.CancelledError, and may clean up.",
    Act.KILL: "End invocations and what they call, without running their code.",
    Act.PAUSE: "Let invocations begin nothing more until they are resumed.",
    Act.RESUME: "Let paused invocations go on, from their journals.",
    Act.PURGE: "Forget the outcomes of invocations that have ended, and their idempotency keys.",
    Act.PURGE_JOURNAL: "Forget the journals of invocations that have ended, and keep their outcomes.",
}
_ACTS_WITH_STEP: Final = {
    Act.RESTART: "Begin paused invocations anew, under their ids and for their callers.",
    Act.RESTART_AS_NEW: "Begin invocations that have ended once more, under new ids.",
}


def _add_act(act: Act, help: str) -> None:
    @invocations.command(str(act), help=f"{help}\n\nShows what it would touch, and asks.")
    def command(
        names: NamesArgument,
        yes: YesOption = False,
        admin: AdminOption = None,
        output: FormatOption = Format.TABLE,
        as_json: JsonOption = False,
    ) -> None:
        act_on_invocations(act, names, Whom(admin=admin), format_of(output, as_json), yes=yes, step=0)

    del command


def _add_act_with_step(act: Act, help: str) -> None:
    @invocations.command(str(act), help=f"{help}\n\nShows what it would touch, and asks.")
    def command(
        names: NamesArgument,
        from_step: Annotated[int, typer.Option(min=0, help="Keep so many steps of the journal.")] = 0,
        yes: YesOption = False,
        admin: AdminOption = None,
        output: FormatOption = Format.TABLE,
        as_json: JsonOption = False,
    ) -> None:
        act_on_invocations(act, names, Whom(admin=admin), format_of(output, as_json), yes=yes, step=from_step)

    del command


for _act, _help in _ACTS.items():
    _add_act(_act, _help)
for _act, _help in _ACTS_WITH_STEP.items():
    _add_act_with_step(_act, _help)


# ---------------------------------------------------------------- services


@services.command("list")
def services_list_command(
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List the services, virtual objects and workflows."""
    list_services(Whom(admin=admin, store=store, codec=codec), format_of(output, as_json))


@services.command("describe")
def services_describe_command(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name.")],
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Tell what a service is: its handlers, what they take and give."""
    describe_service(service, Whom(admin=admin, store=store, codec=codec), format_of(output, as_json))


@services.command("status")
def services_status_command(
    service: Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="Only this one.")] = None,
    watch: WatchOption = False,
    interval: EveryOption = 1.0,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Count the invocations of each service by where they stand."""
    show_status(
        service, Whom(admin=admin, store=store, codec=codec), format_of(output, as_json),
        every_seconds=_every(watch, interval),
    )  # fmt: skip


def deployments_command(
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Tell which program runs, and since when."""
    list_deployments(Whom(admin=admin, store=store, codec=codec), format_of(output, as_json))


# ---------------------------------------------------------------- state


def state_group() -> typer.Typer:
    """`durably state`, and once more `durably kv`."""
    group = typer.Typer(help="The state of objects: read it, edit it, patch it, clear it.", no_args_is_help=True)
    group.command("get")(_get_command)
    group.command("edit")(_edit_command)
    group.command("patch")(_patch_command)
    group.command("clear")(_clear_command)
    return group


def _get_command(
    object: ObjectArgument,
    key: KeyArgument = None,
    field: Annotated[str | None, typer.Option("--field", "-f", help="Only this field.")] = None,
    watch: WatchOption = False,
    interval: EveryOption = 1.0,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Print the state of an object after its last completed handler; without a key, which objects have state."""
    get_state(
        object, key, Whom(admin=admin, store=store, codec=codec), format_of(output, as_json), field=field,
        every_seconds=_every(watch, interval),
    )  # fmt: skip


def _edit_command(
    object: ObjectArgument,
    key: KeyArgument = None,
    yes: YesOption = False,
    admin: AdminOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Open the state of an object in $EDITOR as JSON, and store what comes back.

    The change waits for the handlers that were called before it. If the state has changed by then, nothing happens.
    """
    edit_state(object, key, Whom(admin=admin), format_of(output, as_json), yes=yes)


def _patch_command(
    object: ObjectArgument,
    key: KeyArgument = None,
    patch: Annotated[
        str, typer.Option("--patch", "-p", help="""A JSON Patch: [{"op": "replace", "path": "/count", "value": 7}]""")
    ] = "",
    yes: YesOption = False,
    admin: AdminOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Apply a JSON Patch (RFC 6902) to the state of an object. Else as edit."""
    patch_state(object, key, Whom(admin=admin), format_of(output, as_json), patch=patch, yes=yes)


def _clear_command(
    object: ObjectArgument,
    key: KeyArgument = None,
    yes: YesOption = False,
    admin: AdminOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Delete the state of an object, or without a key of all objects of a class. It waits for what came before."""
    clear_state(object, key, Whom(admin=admin), format_of(output, as_json), yes=yes)


# ---------------------------------------------------------------- questions


def sql_command(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Such as: select target, status from sys_invocation")],
    watch: WatchOption = False,
    interval: EveryOption = 1.0,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Ask in SQL, in the tables of docs/operations.md: sys_invocation, sys_journal, state and others."""
    ask_in_sql(
        query, Whom(admin=admin, store=store, codec=codec), format_of(output, as_json),
        every_seconds=_every(watch, interval),
    )  # fmt: skip


def journal_command(
    id: IdArgument,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Print the journal of an invocation: what it took in and asked for, entry by entry."""
    show_journal(id, Whom(admin=admin, store=store, codec=codec), format_of(output, as_json))


def why_command(
    id: IdArgument,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Tell what an invocation waits for, and what that waits for, as far as it leads.

    A server knows more than the file of its store: the attempts of actions that run now. Neither is changed.
    """
    tell_why(id, Whom(admin=admin, store=store, codec=codec), format_of(output, as_json))


def mcp_command(
    may_change: Annotated[
        bool, typer.Option("--allow-changes", help="Also tools that resume, restart, pause, cancel and kill, by id.")
    ] = False,
    admin: AdminOption = None,
    store: StoreOption = None,
    codec: CodecOption = None,
) -> None:
    """Serve an assistant, over the Model Context Protocol on standard input and output. It only reads, unless allowed.

    What it asks for leaves this machine with the assistant's conversation: arguments, results and state, too.
    """
    from durably.cli.operators.mcp_server import serve_mcp

    serve_mcp(Whom(admin=admin, store=store, codec=codec), may_change=may_change)


def add_to(application: typer.Typer) -> None:
    """Add all of these to the command."""
    application.add_typer(invocations, name="invocations")
    application.add_typer(services, name="services")
    application.add_typer(state_group(), name="state")
    application.add_typer(state_group(), name="kv", help="The same as state.")
    application.command("deployments")(deployments_command)
    application.command("sql")(sql_command)
    application.command("journal")(journal_command)
    application.command("why")(why_command)
    application.command("mcp")(mcp_command)
