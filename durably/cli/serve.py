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
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any, Final

import structlog
from rich.console import Console
from rich.table import Table
from rich.text import Text

from durably.actors.values.user_errors import is_from_signal
from durably.admin import Admin
from durably.cli.failures import CommandError
from durably.cli.loading import load_runtime
from durably.cli.servers import uvicorn_server
from durably.cli.servers.server import Server, ServerMaker, ServerName, server_named
from durably.cli.tuning import tune_for_serving
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.ingress import Ingress
from durably.runtime.execution.failure_text import failure_fields
from durably.runtime.gateway.requests import HandlerDescription, ServiceDescription
from durably.runtime.observation.standard_library import LOGGER_NAME
from durably.runtime.runtime import Runtime

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
DEFAULT_ADMIN_PORT: Final = 9070
DEFAULT_SERVER: Final = ServerName.UVICORN

_KINDS: Final = {
    "service": "freely",
    "exclusive": "alone on its key",
    "shared": "beside others",
    "workflow": "once for each id",
}


def serve(
    target: str, *, host: str, port: int, admin_port: int | None, store: str | None, server: ServerName = DEFAULT_SERVER
) -> None:
    """Serve the runtime that `target` names until a signal comes.

    Operators have a port of their own, on the loopback interface. None is the usual one, or none at all if that is in
    use: a second server on the same machine must not fail for it.

    Raises:
        CommandError: it cannot be served.

    """
    make_server = server_named(server)
    runtime = load_runtime(target)
    try:
        if store is not None:
            runtime.use_store(store)
        with ExitStack() as stack:
            listener = stack.enter_context(_listening_socket(host, port))
            admin_listener = _admin_socket(admin_port)
            if admin_listener is not None:
                stack.enter_context(admin_listener)
            run_on_the_fastest_loop(_serve(runtime, listener, admin_listener, make_server))
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error


async def _serve(
    runtime: Runtime, listener: socket.socket, admin_listener: socket.socket | None, make_server: ServerMaker
) -> None:
    where = _shown(listener)
    admin_where = None if admin_listener is None else _shown(admin_listener)
    server = make_server(Ingress(runtime), listener, lambda: _announce(runtime, where, admin_where))
    admin: Server | None = None
    if admin_listener is not None:  # Operators ask seldom, so which server answers them is no matter of speed.
        admin = uvicorn_server.make(Admin(runtime, ingress_endpoint=f"http://{where}"), admin_listener, _nothing)
    stop = _stop_signal()
    tune_for_serving()
    serving: asyncio.Task[None] | None = None
    administering: asyncio.Task[None] | None = None
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
            if admin is not None:
                administering = asyncio.create_task(admin.serve())
            serving = asyncio.create_task(server.serve())
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            Console(stderr=True).print("Stopping: what runs may finish, the rest goes on at the next start.")
            raise _Interrupt  # The runtime says what it waits for, and that a second signal stops it.
    assert serving is not None
    server.stop()
    if admin is not None:
        admin.stop()
    await serving
    if administering is not None:
        await administering


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
            signal.signal(number, _stop_now)
        if not stopped.done():
            stopped.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
        else:
            loop.add_signal_handler(number, stop)
    return stopped


def _stop_now(number: int, _frame: object) -> None:
    """A second signal: say so, and die of it as any process does."""
    os.write(sys.stderr.fileno(), b"Stopped now. What was accepted is durable, and goes on at the next start.\n")
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _listening_socket(host: str, port: int, option: str = "--port") -> socket.socket:
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


def _admin_socket(port: int | None) -> socket.socket | None:
    if port is not None:
        return _listening_socket(DEFAULT_HOST, port, "--admin-port")
    try:
        return _listening_socket(DEFAULT_HOST, DEFAULT_ADMIN_PORT, "--admin-port")
    except CommandError as error:
        Console(stderr=True, soft_wrap=True).print(f"{error} This server runs without one for operators.")
        return None


def _why_not_bound(host: str, port: int, option: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use by another process. Stop it, or choose another one with {option}."
    return f"Cannot listen on {host}, port {port}: {error.strerror}."


# ---------------------------------------------------------------- what is printed at the start
def _announce(runtime: Runtime, where: str, admin_where: str | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for service in runtime.describe():
        console.print(_service_table(service))
    console.print(Text.assemble("Store: ", str(runtime.store)))
    if admin_where is not None:
        console.print(Text.assemble("For operators: ", (f"http://{admin_where}", "bold")))
    console.print(Text.assemble("Listening on ", (f"http://{where}", "bold green"), " (Ctrl-C stops)"))


def _shown(listener: socket.socket) -> str:
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
