"""`Tls`: a certificate and its key, looked at before a port is opened."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from durably.cli.failures import CommandError
from durably.cli.servers.server_names import ServerName
from durably.configuration import Server as ServerSettings

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM."""

    certificate: str
    key: str


def tls_of(settings: ServerSettings, server: ServerName) -> Tls | None:
    """What the configuration says; None where it says nothing.

    Raises:
        CommandError: it is half said, or does not work.
    """
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise CommandError("HTTPS needs both tls_certificate and tls_key in [server] of durably.toml.")
    if server is not ServerName.UVICORN:
        raise CommandError(f"HTTPS is spoken by uvicorn only. Leave {server} out, or let a proxy before it do that.")
    for name in (settings.tls_certificate, settings.tls_key):
        if not Path(name).is_file():
            raise CommandError(f"There is no file {name}, which [server] of durably.toml names for HTTPS.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=_no_password
        )
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CommandError(
            f"The certificate {settings.tls_certificate} and the key {settings.tls_key} cannot be used: {error}. Both "
            "are files in PEM, the key without a password and of this certificate."
        ) from error
    return Tls(settings.tls_certificate, settings.tls_key)


def only(certificate: str) -> ssl.SSLContext:
    """What trusts a server that has this certificate, by whatever name it is asked, and no other server.

    Raises:
        CommandError: the file cannot be read, or holds none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # Safe because nothing but this certificate is trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # It need not be its own authority.
    try:
        found = Path(certificate).read_text("ascii")
        begin = found.index(_BEGIN)  # The file may go on with the certificates of authorities.
        context.load_verify_locations(cadata=found[begin : found.index(_END, begin) + len(_END)] + "\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it holds no certificate in PEM"
        raise CommandError(
            f"The certificate {certificate} of [server] in durably.toml cannot be read: {reason}. By it, the server is "
            "known. Say where the server is instead: --admin https://shop.example:9070."
        ) from error
    return context


def _no_password() -> str:
    """Without this, OpenSSL would ask at the terminal."""
    raise ValueError("the key has a password")
