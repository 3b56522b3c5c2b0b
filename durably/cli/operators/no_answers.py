"""Why the admin port of a server gave no answer that can be used, as a sentence for each cause: TLS, another server."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx
import orjson

from durably.bearer_tokens import UNAUTHORIZED
from durably.cli.failures import CommandError

PROBE_SECONDS: Final = 5.0
CERTIFICATES_VARIABLE: Final = "SSL_CERT_FILE"

_OTHER_NAME: Final = frozenset({62, 64})
"""What OpenSSL says of a certificate that is for another host, or another address."""
_OUT_OF_DATE: Final = frozenset({9, 10})
_REFUSALS: Final = frozenset({UNAUTHORIZED, 403, 429})
"""With what durably refuses to tell its version."""
_VERSION_FIELDS: Final = ("version", "min_admin_api_version", "max_admin_api_version")


class NoServerError(CommandError):
    """Nothing listens there."""


class NotAnAdminPortError(CommandError):
    """Something answers, and it is not durably."""


def no_admin_port(where: str, what: str) -> NotAnAdminPortError:
    """`what` says what came instead of an answer of durably."""
    return NotAnAdminPortError(
        f"What answers at {where} is no admin API of durably: {what}. Say where the admin port is: --admin "
        "http://127.0.0.1:9070, or url in [admin] of durably.toml. durably serve prints it at its start."
    )


async def not_asked(error: httpx.HTTPError, url: str, where: str, *, pinned: str | None) -> CommandError:
    """The sentence for a request that got no answer.

    `pinned` is the certificate of `durably.toml`, where the server has to have that one.
    """
    cause = _tls_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return CommandError(_why_not_trusted(cause, where, pinned))
    if cause is not None or (url.startswith("https:") and isinstance(error, httpx.ConnectError) and _was_cut(error)):
        return CommandError(
            f"What answers at {where} does not speak HTTPS. If it is a durably server without a certificate, write "
            f"http:// in place of https:// (--admin, or url in [admin] of durably.toml)."
        )
    if isinstance(error, httpx.ConnectError):
        return NoServerError(
            f"No server answers at {where}. Start one (durably serve), say where it is (--admin, or [admin] "
            "of durably.toml), or name the file of a stopped one (--store sqlite:///app.db)."
        )
    if url.startswith("http:") and isinstance(error, httpx.ProtocolError | httpx.NetworkError):
        if await _speaks_tls(url):
            return CommandError(
                f"What answers at {where} speaks HTTPS, and was asked in HTTP. Write https:// in place of http:// "
                "(--admin, or url in [admin] of durably.toml)."
            )
        if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
            return no_admin_port(where, "it does not speak HTTP")
    return CommandError(f"{where} did not answer: {type(error).__name__}. Ask again.")


def refusal(answer: httpx.Response, where: str) -> CommandError:
    """The sentence for an answer of 400 and above."""
    message = _message(answer)
    if message is None:
        return no_admin_port(where, _kind(answer))
    if answer.status_code == UNAUTHORIZED:
        fault = "wrong" if "authorization" in answer.request.headers else "missing"
        return CommandError(
            f"{where} asks for a token, and yours is {fault}. Set DURABLY_ADMIN_TOKEN, or token_file in [admin] of "
            "durably.toml."
        )
    return CommandError(f"{where}: {message}{'' if message.endswith('.') else '.'}")


def refuse_strangers(answer: httpx.Response, where: str) -> None:
    """Look at what `GET /version` answered.

    Raises:
        NotAnAdminPortError: it is not what durably answers.
        CommandError: durably answers, and refuses.
    """
    if 400 <= answer.status_code < 500 and answer.status_code not in _REFUSALS:  # So does the port for calls.
        raise no_admin_port(where, _kind(answer))
    if answer.status_code >= 400:
        raise refusal(answer, where)
    told = parsed(answer, where)
    if not isinstance(told, dict) or not all(field in told for field in _VERSION_FIELDS):
        raise no_admin_port(where, _kind(answer))


def parsed(answer: httpx.Response, where: str) -> Any:
    """The JSON of an answer.

    Raises:
        NotAnAdminPortError: it is none.
    """
    if answer.status_code >= 300:
        raise no_admin_port(where, _kind(answer))
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        raise no_admin_port(where, _kind(answer)) from None


def field_of(answer: httpx.Response, where: str, field: str, type: type) -> Any:
    """A field of the object that an answer is.

    Raises:
        NotAnAdminPortError: it has no such field.
    """
    told = parsed(answer, where)
    found: Any = cast("dict[str, Any]", told).get(field) if isinstance(told, dict) else None
    if not isinstance(found, type):
        raise no_admin_port(where, f"the answer has no '{field}'")
    return found


def _kind(answer: httpx.Response) -> str:
    """Such as `it answers 404 with text/html`."""
    if 300 <= answer.status_code < 400:
        return f"it answers {answer.status_code} and sends elsewhere"
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    return f"it answers {answer.status_code} with {kind if kind and answer.content else 'nothing'}"


def _message(answer: httpx.Response) -> str | None:
    """What durably says in the body of an error; None where something else answers."""
    try:
        told = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return None
    message = cast("dict[str, Any]", told).get("message") if isinstance(told, dict) else None
    return message if isinstance(message, str) else None


# ---------------------------------------------------------------- TLS


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    return next((one for one in _causes(error) if isinstance(one, ssl.SSLError)), None)


def _was_cut(error: BaseException) -> bool:
    """It listens, and ended the connection instead of a handshake."""
    return any(isinstance(one, ConnectionResetError | ConnectionAbortedError | EOFError) for one in _causes(error))


def _why_not_trusted(error: ssl.SSLCertVerificationError, where: str, pinned: str | None) -> str:
    if error.verify_code in _OUT_OF_DATE:
        return (
            f"The certificate of {where} does not hold today: {error.verify_message}. Give the server a new one, and "
            "restart it."
        )
    if pinned is not None:
        return (
            f"The certificate of {where} is not that of {pinned}, which durably.toml names: {error.verify_message}. "
            "Restart the server if the file is newer than its start, or say which server you mean (--admin)."
        )
    if error.verify_code in _OTHER_NAME:
        return (
            f"The certificate of {where} is for another name: {error.verify_message}. Ask the server by a name that "
            "its certificate has (--admin, or url in [admin] of durably.toml)."
        )
    return (
        f"The certificate of {where} is not trusted: {error.verify_message}. If it is yours, name the file of it, or "
        f"of the authority that signed it, in PEM: {CERTIFICATES_VARIABLE}=server.pem durably ...{_named_in_vain()}"
    )


def _named_in_vain() -> str:
    name = os.environ.get(CERTIFICATES_VARIABLE)
    if not name:
        return ""
    fault = "does not hold it" if Path(name).is_file() else "is not there"
    return f" ({CERTIFICATES_VARIABLE} names {name}, which {fault}.)"


async def _speaks_tls(url: str) -> bool:
    """Whether a handshake succeeds there. Nothing is sent after it, so it does not matter who it is."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, ssl=anyone)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
