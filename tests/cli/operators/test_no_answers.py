"""What operators are told where the admin port does not answer as one: TLS on one side alone, strange certificates,
and servers that are something else.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.cli.operators.conftest import Command, Site

VERSION = b'{"version": "1", "min_admin_api_version": 3, "max_admin_api_version": 4, "services": [], "rows": []}'
COMMANDS = {
    "invocations list": ["invocations", "list"],
    "invocations describe": ["invocations", "describe", "inv_1x"],
    "invocations cancel": ["invocations", "cancel", "Cart", "-y"],
    "journal": ["journal", "inv_1x"],
    "why": ["why", "inv_1x"],
    "services list": ["services", "list"],
    "services describe": ["services", "describe", "Cart"],
    "services status": ["services", "status"],
    "deployments": ["deployments"],
    "state get": ["state", "get", "Cart"],
    "state patch": ["state", "patch", "Cart/mary", "-p", "[]", "-y"],
    "state clear": ["state", "clear", "Cart", "-y"],
    "sql": ["sql", "select 1"],
}


class Listener(ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handshake that fails is no matter of the test's stderr."""


@contextmanager
def answering(status: int, kind: str, body: bytes, tls: Path | None = None) -> Generator[str]:
    """A server that answers everything so; the block gets its host and port."""

    class Answers(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Not on the stderr of the test."""

    server = Listener(("127.0.0.1", 0), Answers)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "own.pem", tls / "own.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def greeting(words: bytes) -> Generator[str]:
    """A server that speaks first, as those of mail do, or that ends each connection if there are no words."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(words)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass

        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


STRANGERS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "HTML": lambda: answering(200, "text/html", b"<html>hello</html>"),
    "nothing": lambda: answering(200, "text/plain", b""),
    "404": lambda: answering(404, "text/html", b"<html>not found</html>"),
    "404 as JSON": lambda: answering(404, "application/json", b'{"message": "not found"}'),
    "another 401": lambda: answering(401, "text/html", b"<html>log in</html>"),
    "502": lambda: answering(502, "text/html", b"<html>bad gateway</html>"),
    "elsewhere": lambda: answering(302, "text/html", b""),
    "an object": lambda: answering(200, "application/json", b'{"version": "1"}'),
    "a list": lambda: answering(200, "application/json", b"[1]"),
    "a text": lambda: answering(200, "application/json", b'"version"'),
    "no HTTP": lambda: greeting(b"220 mail.example ESMTP\r\n\r\n"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_at_the_address_is_told(command: Command, stranger: str) -> None:
    with STRANGERS[stranger]() as address:
        told = command("invocations", "list", "--admin", f"http://{address}")
    assert (told.status, told.out) == (1, "")
    assert f"What answers at http://{address} is no admin API of durably: it " in told.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_operators_tells_of_a_stranger(command: Command, name: str) -> None:
    with answering(200, "application/json", b"{}") as address:
        told = command(*COMMANDS[name], "--admin", f"http://{address}")
    assert (told.status, told.out) == (1, "")
    assert "is no admin API of durably" in told.err


def test_an_answer_of_another_shape_behind_a_right_beginning_is_told(command: Command) -> None:
    body = VERSION.replace(b'"rows": []', b'"rows": 7')
    with answering(200, "application/json", body) as address:
        told = command("invocations", "list", "--admin", f"http://{address}")
    assert (told.status, told.out) == (1, "")
    assert "is no admin API of durably: the answer has no 'rows'." in told.err


def test_the_port_for_calls_is_no_admin_port(site: Site, command: Command) -> None:
    told = command("services", "list", "--admin", site.url)
    assert (told.status, told.out) == (1, "")
    assert f"What answers at {site.url} is no admin API of durably: it answers 400" in told.err


def test_a_server_that_hangs_up_is_told(command: Command) -> None:
    with greeting(b"") as address:
        told = command("services", "list", "--admin", f"http://{address}")
    assert (told.status, told.out) == (1, "")
    assert f"http://{address} did not answer: RemoteProtocolError. Ask again." in told.err


@pytest.mark.parametrize("url", ["http://xn--a", "http://[::1", "ftp://127.0.0.1", "http://:9070", "http://a:x", "\n"])
def test_what_is_no_address_is_told(command: Command, url: str) -> None:
    told = command("services", "list", "--admin", url)
    assert (told.status, told.out) == (1, "")
    assert "is no address. Write http://127.0.0.1:9070" in told.err


# ---------------------------------------------------------------- TLS


def certificate(folder: Path, name: str = "127.0.0.1", *, days: int = 36_500) -> Path:
    """A certificate by itself in `own.pem`, with its key in `own.key`."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop")])
    began = datetime(2020, 1, 1, tzinfo=UTC)
    is_address = name[0].isdigit()
    general: x509.GeneralName = x509.IPAddress(ip_address(name)) if is_address else x509.DNSName(name)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([general]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "own.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "own.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


def test_a_certificate_that_is_not_trusted_says_how_to_trust_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    # A store that would be read if nothing answered: something does.
    (tmp_path / "durably.toml").write_text("[store]\nurl = 'sqlite:///app.db'\n", "utf-8")
    with answering(200, "application/json", VERSION, tls=certificate(tmp_path / "tls")) as address:
        monkeypatch.setenv("DURABLY_ADMIN_URL", f"https://{address}")
        told = command("invocations", "list")
        assert (told.status, told.out) == (1, "")
        assert f"The certificate of https://{address} is not trusted: self-signed certificate" in told.err.replace(
            "self signed", "self-signed"
        )
        assert "SSL_CERT_FILE=server.pem durably" in told.err
        assert "No server answers" not in told.err
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        assert "none.pem, which is not there.)" in command("invocations", "list").err
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path / "other") / "own.pem"))
        assert "own.pem, which does not hold it.)" in command("invocations", "list").err
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls" / "own.pem"))
        assert command("invocations", "list", "--json").data == []


def test_a_certificate_of_another_name_or_time_is_told(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name, days, said in (
        ("name", "shop.example", 36_500, "is for another name: "),
        ("time", "127.0.0.1", 1, "does not hold today: certificate has expired"),
    ):
        own = certificate(tmp_path / folder, name, days=days)
        monkeypatch.setenv("SSL_CERT_FILE", str(own / "own.pem"))
        with answering(200, "application/json", VERSION, tls=own) as address:
            told = command("invocations", "list", "--admin", f"https://{address}")
        assert (told.status, told.out) == (1, "")
        assert f"The certificate of https://{address} {said}" in told.err


def test_https_for_http_and_http_for_https_are_told(command: Command, tmp_path: Path) -> None:
    with answering(200, "application/json", VERSION, tls=certificate(tmp_path / "tls")) as address:
        told = command("invocations", "list", "--admin", f"http://{address}")
    assert (told.status, told.out) == (1, "")
    assert f"What answers at http://{address} speaks HTTPS, and was asked in HTTP. Write https://" in told.err
    for other in (answering(200, "application/json", VERSION), greeting(b"")):
        with other as address:
            told = command("invocations", "list", "--admin", f"https://{address}")
        assert (told.status, told.out) == (1, "")
        assert f"What answers at https://{address} does not speak HTTPS" in told.err
        assert "write http://" in told.err


def test_beside_the_configuration_of_a_server_with_tls_operators_need_nothing_else(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    own = certificate(tmp_path / "tls", "shop.example")  # It is known by its file, and not by its name.
    with answering(200, "application/json", VERSION, tls=own) as address:
        port = address.rpartition(":")[2]
        settings = "[server]\ntls_certificate = '{}/own.pem'\ntls_key = 'k'\n[admin]\nport = " + port
        (tmp_path / "durably.toml").write_text(settings.format("tls"), "utf-8")
        assert command("invocations", "list", "--json").data == []
        certificate(tmp_path / "other", "shop.example")
        (tmp_path / "durably.toml").write_text(settings.format("other"), "utf-8")
        told = command("invocations", "list")
        assert (told.status, told.out) == (1, "")
        assert f"The certificate of https://{address} is not that of other/own.pem" in told.err
        (tmp_path / "other" / "own.pem").write_text("none", "utf-8")
        told = command("invocations", "list")
        assert "other/own.pem of [server] in durably.toml cannot be read: it holds no certificate in PEM." in told.err
        # An address that is named is asked as it is named.
        told = command("invocations", "list", "--admin", f"http://{address}")
        assert "speaks HTTPS, and was asked in HTTP" in told.err
