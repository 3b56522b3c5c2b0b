"""`durably serve`: a runtime over HTTP, for as long as the process is wanted.

The order is what matters. The port is taken first, so that a second server fails before it touches the store; requests
are let in when the runtime runs; on SIGTERM or Ctrl-C the runtime drains while the server still answers (new requests
get 503, waiting ones their results), and only then the server goes. A second signal ends the process at once, and says
so: what was accepted is durable.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any, Final, Literal

import structlog
from rich.console import Console
from rich.table import Table
from rich.text import Text
from starlette.types import ASGIApp

from durably.actors.machines.project import Main
from durably.actors.values.durations import moment
from durably.actors.values.user_errors import is_from_signal
from durably.admin import Admin
from durably.bearer_tokens import BearerTokens
from durably.cli.failures import CommandError
from durably.cli.loading import load_runtime
from durably.cli.servers import uvicorn_server
from durably.cli.servers.server import Server, ServerMaker, ServerName, server_named
from durably.cli.servers.tls import Tls, tls_of
from durably.cli.standby import Door, stand_by, until_given_up, until_taken_over
from durably.cli.tuning import tune_for_serving
from durably.configuration import Admin as AdminSettings
from durably.configuration import Configuration, tokens_of
from durably.configuration import Server as ServerSettings
from durably.configuration import Tracing as TracingSettings
from durably.configuration.sections import values_of, without_credentials, without_password
from durably.errors import DefinitionError, DurablyError, StoreInUseError, StoreUnavailableError
from durably.ids import InvocationStatus
from durably.ingress import Ingress
from durably.ingress.cross_origin import CrossOrigin
from durably.runtime.clock import SystemClock
from durably.runtime.execution.failure_text import failure_fields
from durably.runtime.gateway.requests import HandlerDescription, ServiceDescription
from durably.runtime.observation.standard_library import LOGGER_NAME
from durably.runtime.observation.tracing.otlp import Tracing, can_trace, has_endpoint_variable
from durably.runtime.runtime import Runtime
from durably.storage.connect import store_from_url

EVERYWHERE: Final = ("0.0.0.0", "::")
MAIN_SECONDS: Final = 2
"""How long `main` may take to end by itself once a signal has come."""

_KINDS: Final = {
    "service": "freely",
    "exclusive": "alone on its key",
    "shared": "beside others",
    "workflow": "once for each id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What is to be served, and where."""

    target: str
    ingress: tuple[str, int] | None
    """Where calls come in; None: nowhere."""
    ingress_url: str | None
    """What those who call it are told to ask for, where that is not its address."""
    ingress_tokens: tuple[str, ...] = ()
    """What callers have to bring one of; empty: nothing."""
    admin: tuple[str, int] | None
    """Where operators ask; None: nowhere."""
    admin_tokens: tuple[str, ...] = ()
    admin_may_fail: bool
    """The usual port for operators may be in use: a second server on the same machine must not fail for it."""
    store: str | None
    checkpoints: Literal["own", "external"] = "own"
    """Who makes them, of the store that is named here."""
    server: ServerName
    tls: Tls | None = None
    suspend_after_seconds: float | None = None
    """How long an attempt waits in memory; None: as the program says."""
    tracing: Tracing | None = None
    """Where traces go; None: where the program or the variables of OpenTelemetry say."""
    pubsub: Mapping[str, object] = field(default_factory=dict[str, object])
    """What is to be otherwise with events than the program says, by the fields of `PubSub`."""
    is_standby: bool = False
    """While another process owns the store, this one waits for it."""


def serving(
    configuration: Configuration,
    *,
    target: str | None,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    store: str | None,
    server: ServerName | None,
    tracing_endpoint: str | None,
    suspend_after_seconds: float | None = None,
    is_standby: bool = False,
) -> Serving:
    """What the options of the command say, and where they say nothing, the configuration.

    Raises:
        CommandError: nothing would be served.
    """
    settings = configuration.server or ServerSettings()
    target = settings.target if target is None else target
    if target is None:
        raise CommandError(
            "Nothing says what to serve. Name a runtime, as in durably serve app:runtime, or give durably.toml a "
            'section [server] with target = "app:runtime".'
        )
    all_doors = configuration.names_no_door
    is_asked_for = (host, port) != (None, None)
    has_ingress = all_doors or is_asked_for or not (configuration.server is None is configuration.ingress)
    has_admin = all_doors or configuration.admin is not None or admin_port is not None
    operators = configuration.admin or AdminSettings()
    server = ServerName(settings.http_server) if server is None else server
    return Serving(
        target=target,
        ingress=(settings.host if host is None else host, settings.port if port is None else port)
        if has_ingress
        else None,
        ingress_url=_told_address(configuration),
        ingress_tokens=tokens_of(configuration.ingress),
        admin=(operators.host, operators.port if admin_port is None else admin_port) if has_admin else None,
        admin_tokens=tokens_of(configuration.admin),
        admin_may_fail=admin_port is None and not configuration.is_given("admin", "port"),
        store=configuration.store.url if store is None and configuration.store is not None else store,
        checkpoints="own" if configuration.store is None else configuration.store.checkpoints,
        server=server,
        tls=tls_of(settings, server),
        suspend_after_seconds=suspend_after_seconds,
        tracing=_tracing(configuration, tracing_endpoint),
        pubsub=_pubsub(configuration),
        is_standby=is_standby,
    )


def _tracing(configuration: Configuration, endpoint: str | None) -> Tracing | None:
    settings = configuration.tracing or TracingSettings()
    if endpoint is None and configuration.tracing is None:
        return None
    try:
        return Tracing(endpoint or settings.endpoint, settings.protocol, service_name=settings.service_name)
    except DefinitionError as error:
        raise CommandError(str(error)) from error


def _pubsub(configuration: Configuration) -> dict[str, object]:
    """What the section says, as fields of `PubSub`."""
    if configuration.pubsub is None:
        return {}
    names = {"retention_seconds": "retention"}
    said = values_of(configuration.pubsub).items()
    return {names.get(key, key): value for key, value in said if value is not None}


def serve(what: Serving, runtime: Runtime | None = None, main: Main | None = None) -> None:
    """Serve a runtime until a signal comes: the one that is named, or this one. `main` runs beside it.

    Raises:
        CommandError: it cannot be served.

    """
    make_server = server_named(what.server)
    try:
        if runtime is None:
            runtime = load_runtime(what.target)
            if what.store is not None:
                runtime.use_store(store_from_url(what.store, checkpoints=what.checkpoints))
        if find_spec("prometheus_client") is not None:  # What /metrics is written with.
            runtime.use_metrics()
        _keep_events_as_told(runtime, what.pubsub)
        if what.suspend_after_seconds is not None:
            runtime.use_suspend_after(what.suspend_after_seconds)
        if what.tracing is not None:
            runtime.use_tracing(what.tracing)
        elif not runtime.is_traced and has_endpoint_variable():
            _trace_where_the_environment_says(runtime)
        with ExitStack() as stack:
            listener = None if what.ingress is None else stack.enter_context(listening_socket(*what.ingress))
            admin_listener = _admin_socket(what)
            if admin_listener is not None:
                stack.enter_context(admin_listener)
            if what.is_standby:
                runtime.stand_by(_address(what, listener))
                program = _serve_in_terms(runtime, what, listener, admin_listener, make_server)
            else:
                program = _serve(runtime, what, listener, admin_listener, make_server, main)
            run_on_the_fastest_loop(program)
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error


def _keep_events_as_told(runtime: Runtime, pubsub: Mapping[str, object]) -> None:
    try:
        runtime.use_pubsub(**pubsub)
    except (DurablyError, ValueError) as error:
        raise CommandError(f"[pubsub] of durably.toml does not fit: {error}") from error


def _trace_where_the_environment_says(runtime: Runtime) -> None:
    """The variables may be meant for other programs: without the extra this one runs as before."""
    if can_trace():
        runtime.use_tracing(Tracing())
    else:
        Console(stderr=True, soft_wrap=True).print(
            "The environment says where traces go, and this server sends none: pip install 'durably\\[tracing]'."
        )


async def _serve(
    runtime: Runtime,
    what: Serving,
    listener: socket.socket | None,
    admin_listener: socket.socket | None,
    make_server: ServerMaker,
    main: Main | None,
) -> None:
    servers = _servers(runtime, what, listener, admin_listener, make_server)
    stop = _stop_signal()
    tune_for_serving()
    serving: list[asyncio.Task[None]] = []
    failure: BaseException | None = None
    try:
        with suppress(_Interrupt):
            async with AsyncExitStack() as stack:
                starting = asyncio.create_task(stack.enter_async_context(runtime))
                first: set[asyncio.Future[Any]] = {starting, stop}
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():  # It waits for its store, which may take any time.
                    starting.cancel()
                    await asyncio.wait({starting})
                    Console(stderr=True).print("Stopped before the store could be opened.")
                    return
                await starting
                counting = asyncio.create_task(_tell_what_goes_on(runtime))
                given_up = asyncio.create_task(until_given_up(runtime))
                stack.callback(counting.cancel)
                stack.callback(given_up.cancel)
                serving = [asyncio.create_task(server.serve()) for server in servers]
                failure = await _until_stopped(serving, stop, given_up, None if main is None else main(runtime))
                if given_up.done():  # The runtime has stopped for good, which ends this process with status 1.
                    given_up.result()
                Console(stderr=True).print("Stopping: what runs may finish, the rest goes on at the next start.")
                raise _Interrupt  # The runtime says what it waits for, and that a second signal stops it.
    finally:
        if serving:
            for server in servers:
                server.stop()
        for ending in reversed(serving):
            await ending
    if failure is not None:
        traceback.print_exception(failure)
        raise CommandError(f"main(client) of {what.target} failed: {failure}")


async def _until_stopped(
    serving: Sequence[asyncio.Task[None]],
    stop: asyncio.Future[None],
    given_up: asyncio.Future[None],
    main: Coroutine[Any, Any, None] | None,
) -> BaseException | None:
    """Wait until a signal comes, a server ends, or the store is given up; or `main` fails, which is returned."""
    beside = None if main is None else asyncio.create_task(main)
    ends: set[asyncio.Future[None]] = {*serving[-1:], stop, given_up}
    if beside is None:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return None
    await asyncio.wait({*ends, beside}, return_when=asyncio.FIRST_COMPLETED)
    if beside.done() and (beside.cancelled() or beside.exception() is None):  # It has done what it had to do.
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    else:  # A web server in it has heard the signal, too.
        await asyncio.wait({beside}, timeout=MAIN_SECONDS)
        beside.cancel()
        await asyncio.wait({beside})
    return None if beside.cancelled() else beside.exception()


async def _serve_in_terms(
    runtime: Runtime,
    what: Serving,
    listener: socket.socket | None,
    admin_listener: socket.socket | None,
    make_server: ServerMaker,
) -> None:
    """Serve while the store is ours, and stand by while it is not, until a signal comes."""
    door = Door()
    servers = _servers(runtime, what, listener, admin_listener, make_server, door)
    stop = _stop_signal()
    tune_for_serving()
    serving = [asyncio.create_task(server.serve()) for server in servers]
    try:
        with suppress(_Interrupt):
            while not stop.done():
                await _term(runtime, door, stop)
    finally:
        for server in servers:
            server.stop()
        for ending in reversed(serving):
            await ending


async def _term(runtime: Runtime, door: Door, stop: asyncio.Future[None]) -> None:
    """Become the owner of the store and serve, until somebody else is, or a signal comes."""
    async with AsyncExitStack() as stack:
        if not await stand_by(runtime, door, stop, stack):
            return
        taken_over = asyncio.create_task(until_taken_over(runtime, door))
        counting = asyncio.create_task(_tell_what_goes_on(runtime))
        stack.callback(taken_over.cancel)
        stack.callback(counting.cancel)
        await asyncio.wait({taken_over, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            Console(stderr=True).print("Stopping: what runs may finish, the rest goes on at the next owner.")
            raise _Interrupt
        taken_over.result()


def _servers(
    runtime: Runtime,
    what: Serving,
    listener: socket.socket | None,
    admin_listener: socket.socket | None,
    make_server: ServerMaker,
    door: Door | None = None,
) -> list[Server]:
    """One for operators and one for calls, as far as they are wanted. The last one announces what is there."""
    scheme = "http" if what.tls is None else "https"
    where = None if listener is None else f"{scheme}://{shown_address(listener)}"
    admin_where = None if admin_listener is None else f"{scheme}://{shown_address(admin_listener)}"

    def announce() -> None:
        _announce(runtime, where, admin_where, "" if door is None else " as a standby")

    def behind(application: ASGIApp) -> ASGIApp:
        return application if door is None else door.of(application)

    servers: list[Server] = []
    if admin_listener is not None:  # Operators ask seldom, so which server answers them is no matter of speed.
        # Who has the token may come by any name; without tokens, a name could be pointed here by anybody.
        operators = behind(
            Admin(runtime, ingress_endpoint=what.ingress_url or where, is_own_port=not what.admin_tokens)
        )
        if what.admin_tokens:
            operators = BearerTokens(operators, what.admin_tokens, open_paths={"/health", "/ready"})
        announces = announce if listener is None else _nothing
        servers.append(uvicorn_server.make(operators, admin_listener, announces, what.tls))
    if listener is not None:
        ingress = behind(Ingress(runtime))
        if what.ingress_tokens:
            ingress = BearerTokens(ingress, what.ingress_tokens, open_paths={"/restate/health"})
        servers.append(make_server(CrossOrigin(ingress), listener, announce, what.tls))
    return servers


def _nothing() -> None:
    """The other server says when it is ready."""


class _Interrupt(KeyboardInterrupt):
    """A signal has come. It never leaves this file."""


def run_on_the_fastest_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a program on uvloop where there is one, to its end.

    Rule E3: SystemExit and KeyboardInterrupt that user code raises in a callback leave asyncio's loop. They are logged,
    and the loop goes on with what was ready; only a signal ends it.
    """
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        while True:
            try:
                loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if task.done() or is_from_signal(error):
                    raise
                structlog.get_logger(LOGGER_NAME).error(
                    "user code tried to end the process; the server goes on", **failure_fields(error, is_first=True)
                )
            else:
                return


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The maker of uvloop's event loops; None for asyncio's own, where there is no uvloop."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _stop_signal() -> asyncio.Future[None]:
    """Done at the first SIGTERM or SIGINT; from then on a further one ends the process."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, stop_now)
        if not stopped.done():
            stopped.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
        else:
            loop.add_signal_handler(number, stop)
    return stopped


def stop_now(number: int, _frame: object) -> None:
    """A second signal: say so, and die of it as any process does."""
    os.write(sys.stderr.fileno(), b"Stopped now. What was accepted is durable, and goes on at the next start.\n")
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def listening_socket(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket bound to the address; connections are refused until the server listens on it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CommandError(f"'{host}' is no address of this machine: {error.strerror}.") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise CommandError(_why_not_bound(host, port, option, error)) from error
    return listener


def _admin_socket(what: Serving) -> socket.socket | None:
    if what.admin is None:
        return None
    try:
        listener = listening_socket(*what.admin, "--admin-port")
    except CommandError as error:
        if not what.admin_may_fail or what.ingress is None:
            raise
        Console(stderr=True, soft_wrap=True).print(f"{error} This server runs without one for operators.")
        return None
    address = listener.getsockname()[0]
    if not what.admin_tokens and not ip_address(address.partition("%")[0]).is_loopback:
        listener.close()
        raise CommandError(
            f"The port for operators would be open to others on {address}, to kill and edit what they like. Give "
            "[admin] of durably.toml a token or a token_file (or DURABLY_ADMIN_TOKEN), or leave its host out."
        )
    return listener


def _why_not_bound(host: str, port: int, option: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use by another process. Stop it, or choose another one with {option}."
    return f"Cannot listen on {host}, port {port}: {error.strerror}."


# ---------------------------------------------------------------- what is printed at the start
def _announce(runtime: Runtime, where: str | None, admin_where: str | None, how: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for service in runtime.describe():
        console.print(_service_table(service))
    console.print(Text.assemble("Store: ", str(runtime.store)))
    if admin_where is not None:
        console.print(Text.assemble("For operators: ", (admin_where, "bold")))
    if where is None:
        console.print("No calls are let in: durably.toml has neither [server] nor [ingress]. (Ctrl-C stops)")
    else:
        console.print(Text.assemble("Listening on ", (where, "bold green"), how, " (Ctrl-C stops)"))


async def _tell_what_goes_on(runtime: Runtime) -> None:
    """Beside the requests, since there may be many: what was there before this start."""
    started = moment(SystemClock().now())
    going_on = paused = 0
    with suppress(DurablyError):  # The runtime has logged why it cannot read.
        for status in InvocationStatus:
            if status is not InvocationStatus.COMPLETED:
                async for one in runtime.invocations(status=status):
                    if one.description.accepted_at < started:
                        going_on += status is not InvocationStatus.PAUSED
                        paused += status is InvocationStatus.PAUSED
        told = [f"{_count(going_on)} {'goes' if going_on == 1 else 'go'} on"] if going_on else []
        if paused:
            waits = "waits" if paused == 1 else "wait"
            told.append(f"{_count(paused)} {waits} for a person: durably invocations list --status paused")
        if told:
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"{', '.join(told)}.")


def _count(invocations: int) -> str:
    return f"{invocations:,} invocation{'' if invocations == 1 else 's'}"


def _told_address(configuration: Configuration) -> str | None:
    """What `[ingress]` says of where callers ask. The store and the admin API tell it, so it has no credentials."""
    url = None if configuration.ingress is None else configuration.ingress.url
    if url is None:
        return None
    try:
        return without_password(without_credentials(url)[0])
    except ValueError:
        return without_password(url)


def _address(what: Serving, listener: socket.socket | None) -> str:
    """Where others find this server. One that listens everywhere is found by the name of its machine."""
    if what.ingress_url is not None or listener is None:
        return what.ingress_url or ""
    host, port = listener.getsockname()[:2]
    shown = f"{socket.gethostname()}:{port}" if host in EVERYWHERE else shown_address(listener)
    return f"{'http' if what.tls is None else 'https'}://{shown}"


def shown_address(listener: socket.socket) -> str:
    """Its address as it stands in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{host}:{port}"


def _service_table(service: ServiceDescription) -> Table:
    kind = "virtual object" if service.kind == "object" else service.kind
    table = Table(
        title=Text.assemble((service.name, "bold"), f" ({kind}{', private' if service.private else ''})"),
        title_justify="left", title_style="", box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for handler in service.handlers:
        table.add_row("", Text(_signature(handler), no_wrap=True), Text(_how(handler), style="dim", no_wrap=True))
    return table


def _signature(handler: HandlerDescription) -> str:
    parameters = ", ".join(f"{name}: {annotation}" for name, annotation in handler.parameters.items())
    return f"{handler.name}({parameters}) -> {handler.returns}"


def _how(handler: HandlerDescription) -> str:
    return _KINDS[handler.kind] + (", private" if handler.private else "")
