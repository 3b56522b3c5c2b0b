"""Where a PostgreSQL store lies (`Place`), and whether the server can keep one: asked when it is opened.

A server that acknowledges what it may lose, or a pooler that hands a session to others, is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryDumper

from durably.errors import DefinitionError, StoreLostError, StoreUnavailableError
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.names import resolved
from durably.storage.postgres.statements import LAYOUT_VERSION, MOVING_VERSION, STATEMENTS, layout

OLDEST_VERSION: Final = 130_000
DEFAULT_SCHEMA: Final = "durably"
DEFAULT_LEASE_SECONDS: Final = 10.0
DEFAULT_ANSWER_LIMIT_SECONDS: Final = 30.0
OWN_OPTIONS: Final = ("schema", "lease_seconds", "answer_limit_seconds", "query_role")
"""Of a URL; libpq knows all others."""
CONNECTION_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",
    "application_name": "durably",
}
"""What the URL does not say. A machine that is cut off is noticed after about ten seconds (on Linux); a server that is
there and does not answer, by the answer limit."""
ALWAYS: Final[dict[str, Any]] = {"client_encoding": "UTF8"}
"""Whatever the URL and the variables of libpq say: keys and values are any text."""


class Place(NamedTuple):
    """The database and the schema of a store."""

    conninfo: str
    schema: str
    name: str
    """For people: without the password."""
    lease_seconds: float
    answer_limit_seconds: float
    query_role: str | None = None
    """In whose name queries of people are answered; None: in that of the store."""


def place_of(url: str) -> Place:
    """
    Raises:
        DefinitionError: the URL names no database. Its sentence does not repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        # As libpq reads them: a + is a +.
        options = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
        schema = dict(options).get("schema", DEFAULT_SCHEMA)
        lease_seconds = float(dict(options).get("lease_seconds", DEFAULT_LEASE_SECONDS))
        answer_limit_seconds = float(dict(options).get("answer_limit_seconds", DEFAULT_ANSWER_LIMIT_SECONDS))
        query = urlencode([option for option in options if option[0] not in OWN_OPTIONS], quote_via=quote)
        # By hand, since a URL without a host, which means the local socket, keeps its slashes.
        given: dict[str, Any] = dict(conninfo_to_dict(f"postgresql://{parts.netloc}{parts.path}?{query}"))
    except (ValueError, psycopg.Error):
        raise DefinitionError(
            "The URL of the PostgreSQL store cannot be read. Write `postgresql://user:password@host:5432/database`, "
            "with special characters as `%XX`, and options such as `?sslmode=require` or `?schema=tickets` behind it."
        ) from None
    if "@" in f"{given.get('host')}{given.get('dbname')}" or not str(given.get("port") or 0).isdecimal():
        raise DefinitionError(
            "The URL of the PostgreSQL store has a @ or / in its user or password, which end there. Write them as %40 "
            "and %2F."
        )
    if not schema or "\0" in schema or len(schema.encode()) > 63:
        raise DefinitionError(f"{schema!r} is no name of a schema of PostgreSQL: those have 1 to 63 bytes.")
    if schema == "$user" or schema == "information_schema" or schema.startswith("pg_"):
        raise DefinitionError(f"The schema {schema!r} means something else to PostgreSQL. Name another one in the URL.")
    where = str(given.get("host") or given.get("hostaddr") or "local socket")
    if given.get("port"):
        where += f":{given['port']}"
    name = f"postgres {where}/{given.get('dbname') or given.get('user') or ''}, schema {schema}"
    conninfo = make_conninfo(**CONNECTION_DEFAULTS | given | ALWAYS)
    query_role = dict(options).get("query_role") or None
    return Place(conninfo, schema, name, lease_seconds, answer_limit_seconds, query_role)


def connector(
    place: Place,
    *,
    limit_seconds: float = 0,
    answer_limit_seconds: float | None = None,
    is_replicated: bool = True,
) -> Callable[[], PgConnection]:
    """Makes connections that are ready to use.

    The server stops their statements after `limit_seconds`; 0: never. A server that is silent for longer than
    `answer_limit_seconds` (None: what the place says) is given up. `is_replicated`: what they commit waits for
    synchronous replicas.
    """

    silence_limit_seconds = place.answer_limit_seconds if answer_limit_seconds is None else answer_limit_seconds

    def connect() -> PgConnection:
        connection = PgConnection.connect(resolved(place.conninfo), autocommit=True, prepare_threshold=0)
        try:
            connection.silence_limit_seconds = silence_limit_seconds
            connection.refuse_local_commits()
            connection.adapters.register_dumper(int, Int8BinaryDumper)
            limit = str(round(limit_seconds * 1000))
            settings = {"schema": place.schema, "limit": limit, "is_replicated": is_replicated}
            connection.execute(STATEMENTS["configure"], settings)
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def refuse_unsafe(connection: PgConnection, place: Place) -> None:
    """
    Raises:
        StoreUnavailableError: the server may lose what it has acknowledged, or is none for a store.
    """
    row = connection.execute(STATEMENTS["server"]).fetchone()
    assert row is not None
    version, encoding, fsync, synchronous, is_in_recovery, process_id = row
    reason = None
    if version < OLDEST_VERSION:
        reason = f"It is PostgreSQL {version // 10_000}, and 13 is the oldest that serves. Update it."
    elif encoding != "UTF8":
        reason = f"Its encoding is {encoding}. Create a database with `encoding 'UTF8'`."
    elif fsync != "on":
        reason = "It runs with `fsync = off`, so it loses what it has acknowledged when the machine stops. Turn it on."
    elif synchronous not in ("on", "remote_apply"):
        reason = f"`synchronous_commit` is {synchronous} in spite of being turned on. Connect without a pooler."
    elif is_in_recovery:
        reason = "It is a replica, which takes no writes. Connect to the primary, or list both in the URL."
    elif process_id != connection.info.backend_pid:
        reason = "A pooler stands before it, which breaks sessions. Connect to the server itself."
    if reason is not None:
        raise StoreUnavailableError(f"The store {place.name} cannot be kept on this server. {reason}")


def lay_out(connection: PgConnection, place: Place, *, is_known: bool) -> None:
    """Make the tables of a new store; a store that was open (`is_known`) is never made again.

    Raises:
        StoreLostError: it was open and is not there any more.
        StoreUnavailableError: the schema holds something else, or was laid out by a newer version.
    """
    schema = {"schema": place.schema}
    with connection.transaction():
        connection.execute(STATEMENTS["one_at_a_time"], schema)
        found = connection.execute(STATEMENTS["find_layout"], schema).fetchone()
        assert found is not None
        is_ours, is_used = found
        if is_ours:
            version = connection.execute(STATEMENTS["layout_version"]).fetchone()
            if version == (MOVING_VERSION,):
                raise StoreUnavailableError(
                    f"The store {place.name} is not whole: a move into it has not ended. Run `durably move` again, "
                    "which goes on where it stopped."
                )
            if version != (LAYOUT_VERSION,):
                raise StoreUnavailableError(
                    f"The store {place.name} has layout {version and version[0]}, and this version of durably knows "
                    f"{LAYOUT_VERSION}. Run the version that has written it, or a later one."
                )
            return
        if is_known:
            raise StoreLostError(
                f"The store {place.name} is lost: its tables are gone, which were there before the failure. They are "
                "not created anew, because everything that was acknowledged would be missing. Restore the database, "
                "and start the runtime again."
            )
        if is_used:
            raise StoreUnavailableError(
                f"The store {place.name} cannot be created: the schema is not empty, and holds no store. Name another "
                "one behind the URL, as in `?schema=tickets`, or empty it."
            )
        make_tables(connection, place, LAYOUT_VERSION)


def make_tables(connection: PgConnection, place: Place, version: int) -> None:
    """In a transaction, where there are none."""
    sql = connection.execute(STATEMENTS["make_schema"], {"schema": place.schema}).fetchone()
    assert sql is not None
    connection.execute(str(sql[0]).encode())
    connection.execute(layout(), prepare=False)
    connection.execute(STATEMENTS["note_layout"], (version,))
    connection.execute(STATEMENTS["first_owner"])
    connection.execute(STATEMENTS["first_lease"])
