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

from durably.bearer_tokens import UNAUTHORIZED
from durably.cli.failures import CommandError
from durably.cli.loading import load_codec
from durably.cli.operators.output import Row, talk
from durably.cli.reading import opened_to_read, store_file
from durably.configuration import Admin, Configuration, load_configuration, tokens_of
from durably.configuration.sections import without_password
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.inspection import why
from durably.runtime.clock import SystemClock
from durably.runtime.supervision.contained_codec import unwrapping
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

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self.where = url

    async def rows(self, sql: str) -> Sequence[Row]:
        answer = await self.ask("POST", "/query", {"query": sql}, headers={"accept": "application/json"})
        found: Sequence[Row] = orjson.loads(answer.content)["rows"]
        return found

    async def why(self, id: str) -> tuple[Any, str]:
        path = f"/invocations/{quote(id, safe='')}/why"
        data = await self.ask("GET", path)
        told = await self.ask("GET", path, headers={"accept": "text/plain"})
        return orjson.loads(data.content), told.text

    async def get(self, path: str) -> Any:
        return orjson.loads((await self.ask("GET", path)).content)

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """
        Raises:
            CommandError: it refuses, or does not answer.
        """
        content = None if body is None else orjson.dumps(body)
        told = {"content-type": "application/json"} if body is not None else {}
        try:
            answer = await self._client.request(method, path, content=content, headers={**told, **(headers or {})})
        except httpx.ConnectError as error:
            raise NoServerError(
                f"No server answers at {self.where}. Start one (durably serve), say where it is (--admin, or [admin] "
                "of durably.toml), or name the file of a stopped one (--store sqlite:///app.db)."
            ) from error
        except httpx.HTTPError as error:
            raise CommandError(f"{self.where} did not answer: {type(error).__name__}. Ask again.") from error
        if answer.status_code >= 400:
            raise CommandError(_refusal(answer, self.where))
        return answer


class NoServerError(CommandError):
    """Nothing listens there."""


def _refusal(answer: httpx.Response, where: str) -> str:
    if answer.status_code == UNAUTHORIZED:
        fault = "wrong" if "authorization" in answer.request.headers else "missing"
        return (
            f"{where} asks for a token, and yours is {fault}. Set DURABLY_ADMIN_TOKEN, or token_file in [admin] of "
            "durably.toml."
        )
    try:
        message = str(orjson.loads(answer.content)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"it answers {answer.status_code}, and is no admin port of durably"
    return f"{where}: {message}{'' if message.endswith('.') else '.'}"


# ---------------------------------------------------------------- a file


class StoredFile:
    """The file of a store, which may be in use; it is only read."""

    def __init__(self, store: InspectableStore, file: SqliteStore, codec: str | None) -> None:
        from durably.runtime.queries.queries import Queries

        self._store = store
        self.where = f"the store {file.describe()}"
        coding = None if codec is None else load_codec(codec)
        self._queries = Queries(
            until_durable=_at_once,
            store=file,
            unwrap=unwrapping(coding),
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
        names = [name for name, _ in answer.columns]
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
    settings = (load_configuration() if configuration is None else configuration).admin or Admin()
    url = (whom.admin or settings.url or f"http://127.0.0.1:{settings.port}").rstrip("/")
    if not _is_address(url):
        raise CommandError(f"'{url}' is no address. Write http://127.0.0.1:9070, for example.")
    timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
    # Loading the certificates of the system takes longer than all else.
    trusted = ssl.create_default_context() if url.startswith("https:") else False
    tokens = tokens_of(settings)
    headers = {"authorization": f"Bearer {tokens[0]}"} if tokens else {}
    # No proxy of the environment hears the token, or answers in place of the server.
    async with httpx.AsyncClient(
        base_url=url, timeout=timeout, verify=trusted, headers=headers, trust_env=False
    ) as client:
        yield RunningServer(client, without_password(url))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


async def _answers(running: RunningServer) -> bool:
    try:
        await running.ask("GET", "/version")
    except NoServerError:
        return False
    return True


@asynccontextmanager
async def _file(url: str, whom: Whom, configuration: Configuration) -> AsyncGenerator[StoredFile]:
    codec = whom.codec or (None if configuration.store is None else configuration.store.codec)
    try:
        file = store_file(url)
        async with opened_to_read(file, codec) as store:
            yield StoredFile(store, file, codec)
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
