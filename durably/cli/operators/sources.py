"""Whom the commands of operators ask: a server that runs, at its admin port, or the file of a store.

Both are asked the same questions in SQL (`Source.rows`), so that an answer does not depend on whom one asks. Only a
server can act: what is stopped has no code that would carry an order out.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

import httpx
import orjson

from durably.cli.failures import CommandError
from durably.cli.operators.no_answers import (
    NoServerError,
    field_of,
    not_asked,
    parsed,
    refusal,
    refuse_strangers,
)
from durably.cli.operators.output import Row, talk
from durably.cli.reading import opened_to_read, store_file
from durably.cli.servers.tls import only
from durably.configuration import Admin, Configuration, load_configuration, token_of
from durably.configuration.sections import without_credentials, without_password
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.inspection import why
from durably.runtime.clock import SystemClock
from durably.runtime.queries.column_names import unique_names
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.sqlite import SqliteStore

TIMEOUT_SECONDS: Final = 60.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whom:
    """What the options say about whom to ask."""

    admin: str | None = None
    store: str | None = None
    codec: str | None = None


class Source(Protocol):
    """Who answers."""

    @property
    def where(self) -> str:
        """For sentences."""
        ...

    async def rows(self, sql: str) -> Sequence[Row]:
        """The answer to a query; a field that is NULL is left out."""
        ...

    async def why(self, id: str) -> tuple[Any, str]:
        """What an invocation waits for, as plain data and as text for people."""
        ...


def text(value: str) -> str:
    """A literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


# ---------------------------------------------------------------- a server


class RunningServer:
    """A server that is asked at its admin port."""

    def __init__(self, client: httpx.AsyncClient, url: str, *, pinned: str | None = None) -> None:
        self._client = client
        self._pinned = pinned
        """The certificate of `durably.toml`, where the server has to have that one."""
        self._is_known = False
        self.where = url

    async def rows(self, sql: str) -> Sequence[Row]:
        answer = await self.ask("POST", "/query", {"query": sql}, headers={"accept": "application/json"})
        found: Sequence[Row] = field_of(answer, self.where, "rows", list)
        return found

    async def why(self, id: str) -> tuple[Any, str]:
        path = f"/invocations/{quote(id, safe='')}/why"
        data = await self.ask("GET", path)
        told = await self.ask("GET", path, headers={"accept": "text/plain"})
        return parsed(data, self.where), told.text

    async def get(self, path: str) -> Any:
        return parsed(await self.ask("GET", path), self.where)

    async def recognise(self) -> None:
        """Ask who answers there, once.

        Raises:
            NoServerError: nothing does.
            CommandError: it is not durably, or refuses to say so.
        """
        if not self._is_known:
            refuse_strangers(await self._send("GET", "/version"), self.where)
            self._is_known = True

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """
        Raises:
            CommandError: it refuses, or does not answer.
        """
        await self.recognise()
        answer = await self._send(method, path, body, headers=headers)
        if answer.status_code >= 400:
            raise refusal(answer, self.where)
        return answer

    async def _send(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        content = None if body is None else orjson.dumps(body)
        told = {"content-type": "application/json"} if body is not None else {}
        try:
            return await self._client.request(method, path, content=content, headers={**told, **(headers or {})})
        except httpx.HTTPError as error:
            url = str(self._client.base_url)
            raise await not_asked(error, url, self.where, pinned=self._pinned) from error


# ---------------------------------------------------------------- a file


class StoredFile:
    """The file of a store, which may be in use; it is only read."""

    def __init__(self, store: InspectableStore, file: SqliteStore) -> None:
        from durably.runtime.queries.queries import Queries

        self._store = store
        self.where = f"the store {file.describe()}"
        self._queries = Queries(
            until_durable=_at_once,
            store=file,
            unwrap=store.unwrap if isinstance(store, EncodedStore) else bytes,
            now_us=SystemClock().now,
        )

    async def rows(self, sql: str) -> Sequence[Row]:
        from durably.runtime.queries.queries import KnownDeployment

        try:
            answer = await self._queries.ask(
                sql, services=(), deployment=KnownDeployment("", "", 0, ""), in_flight=lambda: ()
            )
        except ValueError as error:
            raise CommandError(f"{self.where}: {error}") from error
        names = unique_names(name for name, _ in answer.columns)
        return [
            {name: value.hex() if isinstance(value, bytes) else value for name, value in zip(names, row, strict=True)
             if value is not None}
            for row in answer.rows
        ]  # fmt: skip

    async def why(self, id: str) -> tuple[Any, str]:
        told = await why(self._store, id)
        if told is None:
            raise CommandError(
                f"There is no invocation {id} in {self.where}, or its outcome is no longer kept. Its log lines have "
                "its id, and durably invocations list shows what there is."
            )
        return told.data(), str(told)


async def _at_once() -> None:
    """Nothing is under way in a file."""


# ---------------------------------------------------------------- which one


@asynccontextmanager
async def source(whom: Whom) -> AsyncGenerator[Source]:
    """Who answers: the store that is named, else the server, else the store of durably.toml.

    Raises:
        CommandError: none of them does.
    """
    configuration = load_configuration()
    if whom.store is not None:
        async with _file(whom.store, whom, configuration) as found:
            yield found
        return
    stored = None if configuration.store is None else configuration.store.url
    async with server(whom, configuration) as running:
        if whom.admin is None and stored is not None and not await _answers(running):
            talk(f"No server answers at {running.where}: this is what the store {without_password(stored)} holds.")
        else:
            yield running
            return
    async with _file(stored, whom, configuration) as found:
        yield found


@asynccontextmanager
async def server(whom: Whom, configuration: Configuration | None = None) -> AsyncGenerator[RunningServer]:
    """The server, which can act, too.

    Raises:
        CommandError: a file was named instead.
    """
    if whom.store is not None:
        raise CommandError(
            "This needs a server that runs: a store alone has no code that would carry it out. Start durably serve, "
            "and leave --store out."
        )
    found = load_configuration() if configuration is None else configuration
    settings = found.admin or Admin()
    pinned = None if whom.admin or settings.url or found.server is None else found.server.tls_certificate
    url = (whom.admin or settings.url or _own_address(settings, is_https=pinned is not None)).rstrip("/")
    if not _is_address(url):
        raise CommandError(f"'{without_password(url)}' is no address. Write http://127.0.0.1:9070, for example.")
    timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
    trusted: ssl.SSLContext | bool = False
    if pinned is not None:
        trusted = only(pinned)
    elif url.startswith("https:"):  # Loading the certificates of the system takes longer than all else.
        trusted = ssl.create_default_context()
    token = token_of(settings)
    # As a header, since httpx logs the URL.
    asked, credentials = without_credentials(url)
    authorization = credentials or (None if token is None else f"Bearer {token}")
    headers = {} if authorization is None else {"authorization": authorization}
    # No proxy of the environment hears the token, or answers in place of the server.
    async with httpx.AsyncClient(
        base_url=asked, timeout=timeout, verify=trusted, headers=headers, trust_env=False
    ) as client:
        yield RunningServer(client, without_password(url), pinned=pinned)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = httpx.URL(url).host  # It takes less for an address than urlsplit does.
        return parts.scheme in ("http", "https") and bool(parts.hostname and host) and (parts.port or 1) > 0
    except (httpx.InvalidURL, ValueError):
        return False


def _own_address(settings: Admin, *, is_https: bool) -> str:
    """Where `durably serve` with this configuration listens for operators."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if is_https else 'http'}://{shown}:{settings.port}"


async def _answers(running: RunningServer) -> bool:
    try:
        await running.recognise()
    except NoServerError:
        return False
    return True


@asynccontextmanager
async def _file(url: str, whom: Whom, configuration: Configuration) -> AsyncGenerator[StoredFile]:
    codec = whom.codec or (None if configuration.store is None else configuration.store.codec)
    try:
        file = store_file(url)
        async with opened_to_read(file, codec) as store:
            yield StoredFile(store, file)
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
