"""The sections of `durably.toml`, each a struct whose fields are its keys, with their types, limits and defaults.

A new key is a field here. A new section is a struct here, and a line in `SECTIONS` and in `Configuration`. The file,
the environment variables, `durably config show` and the sentences about mistakes follow from that.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import unquote_plus, unquote_to_bytes, urlsplit

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
"""0 takes a free one."""
Text = Annotated[str, msgspec.Meta(min_length=1)]
PositiveInteger = Annotated[int, msgspec.Meta(ge=1)]
PositiveNumber = Annotated[float, msgspec.Meta(gt=0)]
HIDDEN: Final = "(hidden)"
SECRET_KEYS: Final = frozenset({"token"})
"""Their values are shown nowhere: not by `durably config show`, not in errors, not in a `repr`."""
FILE_KEYS: Final = frozenset({"token_file", "tls_certificate", "tls_key"})
"""Their values are paths of files. What `durably.toml` says of them counts from its own folder."""
URL_KEYS: Final = frozenset({"url", "endpoint", "nodes"})
"""Their values are URLs, and may have a password in them."""
SQLITE_PREFIX: Final = "sqlite:///"
"""What follows it in the URL of a store is a path, which counts from there, too."""
_USER_IN_URL: Final = re.compile(
    r"(\s*(?:(?P<scheme>[a-z][a-z\d+.-]*):/{1,3}|/{0,3}))(?P<user>.*)@", re.IGNORECASE | re.DOTALL
)
"""To the last @, also where what is before it has a slip: no scheme, one slash, or an @ or / that is not escaped."""
_DATABASES: Final = "postgres"
"""Schemes that begin so have users who are no secret."""
_PLAIN_USER: Final = re.compile(r"[\w.%+~-]*")
_PARAMETER: Final = re.compile(r"(?:^|(?<=([?&;#\s])))([^=?&;#\s]+)\s*=\s*")
"""Of a query, or a keyword of libpq."""
_REST_OF_QUERY: Final = re.compile(r"[^&]*", re.DOTALL)
_KEYWORD_VALUE: Final = re.compile(r"'(?:[^'\\]|\\.)*(?:'|\\?$)|(?:\\.|\S)*", re.DOTALL)
_SECRET_NAME: Final = re.compile(
    r"password|passwd|passphrase|pwd|secret|token|credential|signature|authorization|(?:api|access|private|account)[_-]?key"
    r"|scram_\w+_key|^(?:key|auth|sig|pass)$",
    re.IGNORECASE,
)


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the file."""

    def __repr__(self) -> str:
        shown = (f"{name}={shown_value(name, getattr(self, name))!r}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"


class Server(Section, frozen=True, kw_only=True):
    """`[server]`: what `durably serve` runs, and where it listens."""

    target: Text | None = None
    """The runtime, as module:attribute, for `durably serve` without an argument."""
    host: Text = "127.0.0.1"
    port: Port = 8080
    tls_certificate: Text | None = None
    """A file in PEM, with the chain. With it and the key, both ports speak HTTPS."""
    tls_key: Text | None = None
    http_server: Literal["uvicorn", "granian"] = "uvicorn"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    json_logs: bool = False


class Ingress(Section, frozen=True, kw_only=True):
    """`[ingress]`: the way in for calls."""

    url: Text | None = None
    """What those who call it ask for, where that is not the address that it listens on: behind a proxy."""
    token: Text | None = None
    """What a caller has to bring, as `authorization: Bearer …`."""
    token_file: Text | None = None
    """A file of tokens, one a line, each of which is good."""


class Admin(Section, frozen=True, kw_only=True):
    """`[admin]`: the port for operators. On another interface than the loopback it needs a token."""

    host: Text = "127.0.0.1"
    port: Port = 9070
    url: Text | None = None
    """Where the commands of operators find it, where that is not the port of this machine."""
    token: Text | None = None
    """What operators have to bring; their commands take it from here, too."""
    token_file: Text | None = None
    deploy_on_startup: bool = False
    """`durably serve-restate` registers what it serves here, at a cluster of Restate; `durably serve` does nothing."""


class Store(Section, frozen=True, kw_only=True):
    """`[store]`: where the runtime keeps everything, instead of the store that the program gives it."""

    url: Text | None = None
    codec: Text | None = None
    """The codec of the store, as module:attribute, for commands that read it."""
    checkpoints: Literal["own", "external"] = "own"
    """Who copies the write-ahead log into the database: the runtime, or a program beside it, such as Litestream."""


class Pubsub(Section, frozen=True, kw_only=True):
    """`[pubsub]`: how events are published and kept, instead of what the program says. See `durably.events.PubSub`."""

    cluster: Text | None = None
    default_stream: Text | None = None
    retention_seconds: PositiveNumber | None = None
    limit_bytes: PositiveInteger | None = None
    sse: bool | None = None
    nodes: tuple[Text, ...] | None = None
    """URLs; in the environment variable with spaces between them."""
    discover: bool | None = None
    in_flight: PositiveInteger | None = None


class Tracing(Section, frozen=True, kw_only=True):
    """`[tracing]`: where traces go, instead of where the program or the variables of OpenTelemetry say."""

    endpoint: Text | None = None
    """The URL of a collector, such as `http://localhost:4317`."""
    protocol: Literal["grpc", "http/protobuf"] | None = None
    service_name: Text | None = None


class Project(Section, frozen=True, kw_only=True):
    """`[project]`: what `durably dev`, `worker`, `main` and `migrate` are about."""

    target: Text = "project:project"
    """The `durably.models.Project`, as module:attribute."""
    models: Text = "models"
    """The folder of `.rst` files."""


SECTIONS: Final[Mapping[str, type[Section]]] = {
    "server": Server,
    "ingress": Ingress,
    "admin": Admin,
    "store": Store,
    "pubsub": Pubsub,
    "tracing": Tracing,
    "project": Project,
}

DOORS: Final = ("server", "ingress", "admin")
"""What `durably serve` may open. Where none of them is configured, it opens all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value, and who said it."""

    section: str
    key: str
    value: object
    origin: str
    """Such as `durably.toml [development.store]`, `the environment variable DURABLY_STORE_URL`, or `default`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What holds in one environment. A section that nothing configures is None."""

    environment: str
    environment_origin: str
    path: Path | None
    """The file; None where there is none."""
    server: Server | None = None
    ingress: Ingress | None = None
    admin: Admin | None = None
    store: Store | None = None
    pubsub: Pubsub | None = None
    tracing: Tracing | None = None
    project: Project | None = None
    settings: tuple[Setting, ...] = ()
    """All values of the sections that are there, in the order of their declaration."""
    names_no_door: bool = True
    """No file says which ports there are, so the usual ones are."""

    def section(self, name: str) -> Section | None:
        found: Section | None = getattr(self, name)
        return found

    def is_given(self, section: str, key: str) -> bool:
        """Whether somebody gave this value, so that it is no default."""
        return any((one.section, one.key) == (section, key) and one.origin != DEFAULT_ORIGIN for one in self.settings)


DEFAULT_ORIGIN: Final = "default"


def values_of(section: Section) -> dict[str, Any]:
    """Its values by key."""
    return {name: getattr(section, name) for name in section.__struct_fields__}


def shown_value(key: str, value: object) -> object:
    """The value for people, or that it is hidden."""
    if value is not None and key in SECRET_KEYS:
        return HIDDEN
    if isinstance(value, str):
        return without_password(value) if key in URL_KEYS or "://" in value else value
    if isinstance(value, list | tuple):
        several = cast("Sequence[object]", value)
        return tuple(shown_value(key, one) for one in several)
    return value


def without_credentials(url: str) -> tuple[str, str | None]:
    """A URL without `user:password@`, and the value of the header `authorization` that says the same.

    What asks there may log its URL, and put it into errors. A header is told nowhere.

    Raises:
        ValueError: it is no URL.
    """
    parts = urlsplit(url)
    user, is_there, host = parts.netloc.rpartition("@")
    if not is_there:
        return url, None
    given = user if ":" in user else f"{user}:"
    return parts._replace(netloc=host).geturl(), f"Basic {b64encode(unquote_to_bytes(given)).decode()}"


def without_password(url: str) -> str:
    """What was given as a URL, of any scheme, or as keywords of libpq, as it may be shown: without the password before
    its host, and without secret parameters. Where it is malformed, more is hidden rather than less.

    A user without a password is a token, and hidden, but for PostgreSQL, where it is a name.
    """
    hidden = sorted([*_hidden_user(url), *_hidden_values(url)])
    shown, end = "", 0
    for begin, until in hidden:
        if begin >= end:
            shown += f"{url[end:begin]}***"
        end = max(end, until)
    return shown + url[end:]


def _hidden_user(url: str) -> Iterator[tuple[int, int]]:
    """From where to where it is hidden."""
    if url.startswith(SQLITE_PREFIX):  # A path has no password, and may have a colon and an @ in it.
        return
    found = _USER_IN_URL.match(url)
    if found is None:
        return
    begin, end = found.span("user")
    user, colon, password = found["user"].partition(":")
    is_of_database = (found["scheme"] or "").lower().startswith(_DATABASES)
    if is_of_database and not colon:
        return
    is_a_token = not is_of_database and not (password and _PLAIN_USER.fullmatch(user))
    yield (begin if is_a_token else begin + len(user) + 1), end


def _hidden_values(url: str) -> Iterator[tuple[int, int]]:
    for found in _PARAMETER.finditer(url):
        separator, name = found.groups()
        if _SECRET_NAME.search(unquote_plus(name)):
            is_in_query = separator is not None and not separator.isspace()
            value = (_REST_OF_QUERY if is_in_query else _KEYWORD_VALUE).match(url, found.end())
            assert value is not None
            yield value.span()
