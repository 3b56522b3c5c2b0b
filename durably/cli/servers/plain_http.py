"""`PlainHttpProtocol`: uvicorn's parser for a server that speaks HTTP/1.1 alone, whatever a client asks to upgrade to.

A request that offers an upgrade (`Upgrade: websocket`, or `h2c`, which Java's client and `curl --http2` send with each
first request) is answered as if it had offered none, as RFC 9110 lets a server do. uvicorn would do so too, but lose
the body, since its parser takes what follows the headers for the other protocol, and log two warnings each time.
"""

from __future__ import annotations

from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

INVALID: Final = "Invalid HTTP request received."
_UPGRADE: Final = b"upgrade"


class PlainHttpProtocol(HttpToolsProtocol):
    """One connection."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        parser = self._parser()
        while data:
            try:
                parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._should_upgrade():  # CONNECT, which is answered already. Nothing is spoken behind it.
                    return
                (offset,) = upgrade.args
                data = self._without_upgrade() + data[offset:]
            except httptools.HttpParserError:
                self.logger.warning(INVALID)
                self.send_400_response(INVALID)
                return
            else:
                return

    def _should_upgrade(self) -> bool:
        """Whether the parser has stopped for an upgrade. Where that is so, uvicorn begins no request yet."""
        return self._get_upgrade() is not None

    def _without_upgrade(self) -> bytes:
        """The line and the headers of the request that was just read, without its offer."""
        parser = self._parser()
        lines = [b"%b %b HTTP/%b" % (parser.get_method(), self.url, parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != _UPGRADE]
        return b"\r\n".join((*lines, b"", b""))

    def _parser(self) -> httptools.HttpRequestParser:
        """It is there for as long as the connection is."""
        parser: httptools.HttpRequestParser | None = self.parser
        assert parser is not None
        return parser
