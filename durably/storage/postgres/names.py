"""Names of servers become addresses, within a limit.

Neither libpq nor the system has one of its own that holds: a DNS server that does not answer would hold up a connection
for as long as the system's resolver likes. The name stays beside its addresses, since certificates are checked by it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from concurrent.futures import Future, wait
from ipaddress import ip_address
from threading import Lock, Thread
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

DEFAULT_PORT: Final = "5432"

_lock: Final = Lock()
_under_way: Final[dict[str, Future[Sequence[str]]]] = {}
"""By name. A question that hangs keeps its thread, so there is one at a time for each name."""


class UnresolvedError(psycopg.OperationalError):
    """No server in the URL has an address."""


def resolved(conninfo: str) -> str:
    """The same with the addresses of the servers that it names; each address is a server to try.

    `connect_timeout` limits how long all names may take together; 0: no limit, as in libpq.

    Raises:
        UnresolvedError: none of the names has an address, or none is told in time.
    """
    given: dict[str, Any] = dict(conninfo_to_dict(conninfo))
    hosts = _listed(given, "host", "PGHOST")
    names = [host for host in hosts if _is_name(host)]
    if not names or _listed(given, "hostaddr", "PGHOSTADDR"):
        return conninfo
    limit_seconds = int(given.get("connect_timeout") or 0)
    asked = {name: _asked(name) for name in names}
    wait(asked.values(), timeout=limit_seconds if limit_seconds > 0 else None)
    ports = _listed(given, "port", "PGPORT") or [DEFAULT_PORT]
    if len(ports) not in (1, len(hosts)):
        return conninfo  # libpq says what is wrong with it.
    tried: list[tuple[str, str, str]] = []
    reasons: list[str] = []
    for place, host in enumerate(hosts):
        port = ports[place if len(ports) > 1 else 0] or DEFAULT_PORT
        if host not in asked:
            tried.append((host, host if _is_address(host) else "", port))
        elif not asked[host].done():
            reasons.append(f"the name {host!r} was not resolved within {limit_seconds} seconds")
        elif (error := asked[host].exception()) is not None:
            reasons.append(f"the name {host!r} cannot be resolved ({error})")
        else:
            tried += [(host, address, port) for address in asked[host].result()]
    if not tried:
        raise UnresolvedError("; ".join(reasons))
    columns = [",".join(column) for column in zip(*tried, strict=True)]
    return make_conninfo(conninfo, host=columns[0], hostaddr=columns[1], port=columns[2])


def _listed(given: dict[str, Any], option: str, variable: str) -> list[str]:
    said = str(given.get(option) or os.environ.get(variable) or "")
    return said.split(",") if said else []


def _is_name(host: str) -> bool:
    """Not a folder of a socket (also one without a file), nor an address."""
    return bool(host) and host[0] not in "/@" and not _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _asked(name: str) -> Future[Sequence[str]]:
    with _lock:
        known = _under_way.get(name)
        if known is not None:
            return known
        asked = _under_way[name] = Future[Sequence[str]]()
    Thread(target=_ask, args=(name, asked), name="durably-postgres-name", daemon=True).start()
    return asked


def _ask(name: str, asked: Future[Sequence[str]]) -> None:
    addresses: list[str] = []
    failure: Exception | None = None
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        addresses += dict.fromkeys(str(one[4][0]) for one in found)
    except Exception as error:
        failure = error
    with _lock:
        del _under_way[name]
    if failure is not None:
        asked.set_exception(failure)
    else:
        asked.set_result(addresses)
