"""`refusal`: what keeps pages of other sites from using the admin API through an operator's browser.

A browser says where a request comes from (`Origin`, `Sec-Fetch-Site`); tools say nothing. On a port of its own the
`Host` has to be this machine as well: a name that somebody has pointed here would make their page one of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

OWN_SITE: Final = frozenset({"same-origin", "none"})


def refusal(headers: Iterable[tuple[bytes, bytes]], *, is_own_port: bool) -> str | None:
    """Why a request is refused, or None. `headers` are those of an ASGI scope."""
    said = {name: value.decode("latin-1") for name, value in headers if name in (b"host", b"origin", b"sec-fetch-site")}
    host = said.get(b"host", "")
    if is_own_port and not _is_this_machine(host):
        return f"the host '{host}' is not this machine: ask for localhost or 127.0.0.1"
    origin = said.get(b"origin")
    if origin is not None and not _is_of_host(origin, host):
        return f"a page of '{origin}' may not use this: it is for tools, and for pages of its own"
    site = said.get(b"sec-fetch-site", "none")
    if site not in OWN_SITE:
        return "a page of another site may not use this: it is for tools, and for pages of its own"
    return None


def _is_of_host(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _is_this_machine(host: str) -> bool:
    """An address cannot be pointed anywhere, a name can, unless it is `localhost`."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
