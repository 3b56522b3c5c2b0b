"""`durably serve-restate`: a deployment of Restate, for as long as the process is wanted, and its registration.

The port is taken first, and the deployment answers before Restate is asked to look at it. What the registration would
change is shown, and done when a person has said yes. SIGTERM and Ctrl-C let attempts under way come to a rest; what has
not by then goes on elsewhere, or at the next start, since Restate keeps it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

from rich.console import Console
from starlette.types import ASGIApp, Receive, Scope, Send

from durably.cli.failures import CommandError
from durably.cli.loading import load_deployment
from durably.cli.operators.asking import agreed
from durably.cli.serve import EVERYWHERE, listening_socket, run_on_the_fastest_loop, shown_address, stop_now
from durably.configuration import Admin, Configuration, Server
from durably.configuration.sections import without_password
from durably.errors import DurablyError

if TYPE_CHECKING:
    from durably.restate import Deployment

RESTATE_PORT: Final = 9080
"""Where Restate's own examples listen."""
EXTRA_MISSING: Final = "durably serve-restate needs {}: pip install 'durably[restate]'"
CLOSING_SECONDS: Final = 2.0
STREAMS: Final = 10_000
"""How many attempts one connection of Restate carries at a time."""
REQUESTS: Final = 2**31 - 1
"""How many it carries in all. At hypercorn's limit, 1,000, it ends with all attempts that are under way on it."""


class Drain:
    """An application that can be brought to a rest: what is under way goes on, and what comes then gets 503.

    hypercorn's own shutdown resets new streams, and ends their connection when it then reads the bodies; Restate goes
    on sending attempts, so those under way on the connection would break off.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
        self._under_way = 0
        self._has_begun = False
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        if self._has_begun:
            await _refuse(receive, send)
            return
        self._under_way += 1
        self._at_rest.clear()
        try:
            await self._application(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._at_rest.set()

    async def until_at_rest(self) -> None:
        """Take no new requests, and return when those under way have ended."""
        self._has_begun = True
        await self._at_rest.wait()


async def _refuse(receive: Receive, send: Send) -> None:
    """Restate tries again later, or elsewhere. The body is read first: hypercorn knows no stream that was answered."""
    await send({"type": "http.response.start", "status": 503, "headers": []})
    while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
        pass
    await send({"type": "http.response.body"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOnRestate:
    """What is to be served, where, and who is to know."""

    target: str
    host: str
    port: int
    register: str | None
    """The address of the admin API of a cluster."""
    advertised: str | None
    """The address at which Restate finds the deployment; None: where it listens."""
    drain_seconds: float
    yes: bool


def on_restate_as_told(
    configuration: Configuration,
    target: str | None,
    *,
    host: str | None,
    port: int | None,
    register: str | None,
    advertised: str | None,
    drain_seconds: float,
    yes: bool,
) -> ServingOnRestate:
    """What options say, and where they do not, `durably.toml`. A registration that it asks for asks for no yes.

    Raises:
        CommandError: nothing says what to serve.
    """
    settings, operators = configuration.server or Server(), configuration.admin or Admin()
    target = settings.target if target is None else target
    if target is None:
        raise CommandError(
            "Nothing says what to serve. Name a deployment, as in durably serve-restate shop:app, or give durably.toml "
            'a section [server] with target = "shop:app".'
        )
    if port is None:
        port = settings.port if configuration.is_given("server", "port") else RESTATE_PORT
    deploys = register is None and operators.deploy_on_startup
    if deploys:
        register = operators.url or f"http://{operators.host}:{operators.port}"
    return ServingOnRestate(
        target=target,
        host=settings.host if host is None else host,
        port=port,
        register=register,
        advertised=advertised,
        drain_seconds=drain_seconds,
        yes=yes or deploys,
    )


def serve_on_restate(what: ServingOnRestate) -> None:
    """Serve a deployment until a signal comes.

    Raises:
        CommandError: it cannot be served, or registered.
    """
    missing = [name for name in ("hypercorn", "restate") if find_spec(name) is None]
    if missing:
        raise CommandError(EXTRA_MISSING.format(" and ".join(missing)))
    deployment = load_deployment(what.target)
    run_on_the_fastest_loop(_serve(what, deployment))


async def _serve(what: ServingOnRestate, deployment: Deployment) -> None:
    from hypercorn.asyncio import serve  # pyright: ignore[reportUnknownVariableType]
    from hypercorn.config import Config

    stop = _stop_event()
    await deployment.start()
    listener = listening_socket(what.host, what.port)
    listener.listen()
    port = listener.getsockname()[1]
    here = f"127.0.0.1:{port}" if what.host in EVERYWHERE else shown_address(listener)
    uri = what.advertised or f"http://{here}"
    told = Console(soft_wrap=True, highlight=False)
    told.print(f"Listening on http://{shown_address(listener)} for Restate: {', '.join(deployment.actors)}")
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = CLOSING_SECONDS  # All is at rest by then, or is to be broken off.
    config.h2_max_concurrent_streams = STREAMS
    config.keep_alive_max_requests = REQUESTS
    config.loglevel = "WARNING"
    drain, closing = Drain(deployment), asyncio.Event()
    server = asyncio.ensure_future(serve(cast(Any, drain), config, shutdown_trigger=cast(Any, closing.wait)))
    try:
        if what.register is not None:
            await _register(deployment, what.register, uri, yes=what.yes)
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([server, stopped], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            at_rest = asyncio.ensure_future(drain.until_at_rest())
            await asyncio.wait([server, at_rest], timeout=what.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
            at_rest.cancel()
        else:
            await server  # It has ended by itself, and says why.
    finally:
        if stop.is_set():
            _say_no_more_of_connections()
        stop.set()
        closing.set()
        await asyncio.wait([server], timeout=CLOSING_SECONDS)
        server.cancel()
        # What it raises after a stop is what a connection has raised that Restate was closing: nothing is lost by that.
        await asyncio.wait([server], timeout=CLOSING_SECONDS)
    if stop.is_set():
        await _leave_behind()


def _say_no_more_of_connections() -> None:
    """That connections break off is what is wanted now. Each layer below would tell of each, with a traceback."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore", RuntimeWarning)
    asyncio.get_running_loop().set_exception_handler(_ignore)


def _ignore(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    """What a connection raised that broke off."""


async def _leave_behind() -> None:
    """End what does not end when it is cancelled, such as an action in a thread, together with the process.

    Restate keeps what that was for, as it does when a process is killed.
    """
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    left = asyncio.all_tasks() - {this}
    for task in left:
        task.cancel()
    left.add(asyncio.ensure_future(loop.shutdown_default_executor()))
    _, running = await asyncio.wait(left, timeout=CLOSING_SECONDS)
    if running:
        Console(stderr=True, soft_wrap=True).print("Stopped: what still ran goes on elsewhere, or at the next start.")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


async def _register(deployment: Deployment, admin_url: str, uri: str, *, yes: bool) -> None:
    from durably.restate import Client
    from durably.restate.registration import Cluster

    told = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        cluster = Cluster(admin_url)
    except DurablyError as error:
        raise CommandError(str(error)) from error
    admin_url, uri_told = without_password(admin_url), without_password(uri)
    try:
        plan = await asyncio.to_thread(cluster.plan, uri)
        if not plan.changes:
            told.print(f"{admin_url} knows all that {uri_told} serves: nothing changes.")
        for change in plan.changes:
            told.print(f"  {change}")
        if plan.changes and plan.replaces:
            told.print(
                f"Another deployment is registered at {uri_told}. What it has begun goes on with this code, and fails "
                "where that differs. To let it end with its own, serve this one at another address."
            )
        if plan.changes:
            agreed(f"Register {uri_told} at {admin_url}?", yes=yes)
        id = await asyncio.to_thread(cluster.register, uri, plan)
        told.print(f"Registered as {id}.")
        if deployment.has_schedules:
            ingress_url = await asyncio.to_thread(cluster.ingress_url)
            if ingress_url is None:
                raise CommandError(
                    f"{admin_url} does not tell where calls come in, so the schedules were not started. Start them "
                    "with `await app.start_schedules(durably.restate.Client(url))`."
                )
            async with Client(ingress_url) as client:
                await deployment.start_schedules(client)
    except DurablyError as error:
        raise CommandError(str(error)) from error
    finally:
        cluster.close()


def _stop_event() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; a further one ends the process at once.

    The SDK is to believe that its hooks are called, or it replaces a handler of ours at its first request. They are not
    called: an attempt would then end before Restate has closed its side, and what Restate still sends to it would
    break its connection, with all other attempts on it (see `Drain`).
    """
    from restate.server import install_shutdown_hook

    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stopped() -> None:
        stop.set()
        loop.call_soon(_end_at_the_next)

    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            install_shutdown_hook(loop, stopped, number)
            loop.add_signal_handler(number, stopped)
    return stop


def _end_at_the_next() -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, cast("Callable[[int, object], None]", stop_now))
