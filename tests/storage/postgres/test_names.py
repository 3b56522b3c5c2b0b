"""Names of servers are resolved within a limit, and stay beside their addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

pytest.importorskip("psycopg")

from psycopg.conninfo import conninfo_to_dict

from durably import StoreUnavailableError
from durably.storage.postgres import PostgresStore
from durably.storage.postgres.names import UnresolvedError, resolved
from durably.testing.stores.contract import OWNER
from tests.postgres import PostgresServer

ADDRESSES = {"db1": ["10.0.0.1", "10.0.0.2"], "db2": ["fd00::2"], "here": ["127.0.0.1"]}


class Dns:
    """Knows some names, and may be silent about others until the test ends."""

    def __init__(self) -> None:
        self.silent = set[str]()
        self.asked = list[str]()
        self.is_over = Event()

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host in self.silent:
            self.is_over.wait()
        if host not in ADDRESSES:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ADDRESSES[host]]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    dns = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", dns.getaddrinfo)
    for variable in ("PGHOST", "PGHOSTADDR", "PGPORT"):
        monkeypatch.delenv(variable, raising=False)
    yield dns
    dns.is_over.set()


def told(conninfo: str) -> dict[str, Any]:
    given = dict(conninfo_to_dict(resolved(conninfo)))
    return {name: given.get(name) for name in ("host", "hostaddr", "port")}


def test_each_address_is_a_server_to_try_under_its_name(dns: Dns) -> None:
    assert told("host=db1,db2,10.1.1.1 port=1,2,3") == {
        "host": "db1,db1,db2,10.1.1.1", "hostaddr": "10.0.0.1,10.0.0.2,fd00::2,10.1.1.1", "port": "1,1,2,3",
    }  # fmt: skip
    assert told("host=db2 port=7 sslmode=verify-full") == {"host": "db2", "hostaddr": "fd00::2", "port": "7"}
    assert told("host=db1,/run/postgresql") == {
        "host": "db1,db1,/run/postgresql", "hostaddr": "10.0.0.1,10.0.0.2,", "port": "5432,5432,5432",
    }  # fmt: skip


@pytest.mark.parametrize(
    "conninfo",
    ["dbname=x", "host=/run/postgresql", "host=@name", "host=10.0.0.1,fe80::1%eth0", "host=db1 hostaddr=10.9.9.9"],
)
def test_what_names_no_server_is_as_it_was(dns: Dns, conninfo: str) -> None:
    assert resolved(conninfo) == conninfo
    assert dns.asked == []


def test_names_of_variables_count(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db2")
    monkeypatch.setenv("PGPORT", "7")
    assert told("dbname=x") == {"host": "db2", "hostaddr": "fd00::2", "port": "7"}


def test_a_server_whose_name_is_not_resolved_is_passed_over(dns: Dns) -> None:
    dns.silent.add("slow")
    assert told("host=slow,nothing,db2 connect_timeout=1")["host"] == "db2"
    with pytest.raises(UnresolvedError, match="'slow' was not resolved within 1 seconds; the name 'nothing' cannot be"):
        resolved("host=slow,nothing connect_timeout=1")
    assert dns.asked.count("slow") == 1, "a question that hangs is not asked again"


def test_a_dns_that_does_not_answer_holds_up_no_store(dns: Dns) -> None:
    dns.silent.add("db1")
    store = PostgresStore("postgresql://mary:hush@db1/tickets?connect_timeout=1")
    with pytest.raises(StoreUnavailableError) as raised:
        asyncio.run(asyncio.wait_for(store.open(OWNER), 30))
    assert "the name 'db1' was not resolved within 1 seconds. Check the URL, and the DNS" in str(raised.value)
    assert "hush" not in str(raised.value)


@pytest.mark.slow
def test_a_store_is_reached_by_its_name(dns: Dns, server: PostgresServer) -> None:
    async def open_and_close(url: str) -> None:
        store = PostgresStore(url)
        await store.open(OWNER)
        await store.close()

    asyncio.run(open_and_close(server.new_url().replace("127.0.0.1", "here")))
    assert "here" in dns.asked
