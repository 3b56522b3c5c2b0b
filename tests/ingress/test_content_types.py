"""A handler gets bodies of the content types that it takes, and no others; the answer says of which type it is."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably import (
    BytesSerde,
    Context,
    DefinitionError,
    JsonSerde,
    MsgpackSerde,
    Runtime,
    Service,
    handler,
)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
UNSAID = (None, "", " ", FORM, f"{FORM}; charset=utf-8", f"{FORM};charset=")
"""Says nothing of what a body holds: curl's default for -d is among it."""


class Desk(Service):
    @handler
    async def plain(self, ctx: Context, value: Any = None) -> Any:
        return value

    @handler
    async def nothing(self, ctx: Context) -> None: ...

    @handler(accepts=BytesSerde(), returns=BytesSerde("image/png"))
    async def anything(self, ctx: Context, raw: bytes) -> bytes:
        return raw

    @handler(accepts=BytesSerde(accepts="image/*"), returns=BytesSerde("text/plain; charset=utf-8"))
    async def image(self, ctx: Context, raw: bytes) -> bytes:
        return raw

    @handler(accepts=BytesSerde(accepts="Application/*"), returns=BytesSerde())
    async def application(self, ctx: Context, raw: bytes) -> bytes:
        return raw

    @handler(accepts=BytesSerde("application/octet-stream", accepts="application/octet-stream"))
    async def octets(self, ctx: Context, raw: bytes) -> int:
        return len(raw)

    @handler(accepts=MsgpackSerde(str), returns=MsgpackSerde(str))
    async def packed(self, ctx: Context, text: str = "") -> str:
        return text


TAKES = {
    "plain": JSON,
    "anything": "*/*",
    "image": "image/*",
    "application": "application/*",
    "octets": "application/octet-stream",
    "packed": "application/msgpack",
}
BODIES = {"plain": b'"x"', "packed": MsgpackSerde(str).encode("x")}

words = st.sampled_from(
    ["application", "image", "text", "json", "png", "msgpack", "octet-stream", "x", "*", "vnd.a+json"]
)
names = st.one_of(words, st.builds("{}/{}".format, words, words), st.sampled_from([*TAKES.values()]))
cased = st.one_of(names, names.map(str.upper), names.map(str.title))
OTHER_CHARSETS = ("; charset=latin-1", ' ; v=1; CharSet="utf-16; x"', ";charset=")
parameters = st.sampled_from(
    ["", ";", "; charset=utf-8", ' ; v=1;charset="UTF8"', ";q=1;v=2", "\t; x=application/json", "; x=charset=latin-1",
     *OTHER_CHARSETS]
)  # fmt: skip


@st.composite
def content_types(draw: st.DrawFn) -> str | None:
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(UNSAID))
    return draw(cased) + draw(parameters)


def fits(content_type: str | None, taken: str, body: bytes) -> bool:
    """As it is written in the reference: type and subtype, with *; what has none is JSON."""
    if taken == "*/*":
        return True
    if content_type in UNSAID or (content_type or "").startswith(FORM):
        return not body or taken in (JSON, "application/*")
    kind, slash, subkind = (content_type or "").lower().split(";")[0].strip().partition("/")
    taken_kind, _, taken_subkind = taken.partition("/")
    return slash == "/" and kind == taken_kind and taken_subkind in (subkind, "*")


def serving(runtime: Runtime) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(runtime.asgi()))


def headers(content_type: str | None) -> list[tuple[bytes, bytes]]:
    return [] if content_type is None else [(b"content-type", content_type.encode())]


async def answered(client: httpx.AsyncClient, handler: str, content_type: str | None, body: bytes) -> httpx.Response:
    request = httpx.Request("POST", f"http://localhost/Desk/{handler}", content=body)
    raw = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-type"]
    request.headers = httpx.Headers(raw + headers(content_type))
    return await client.send(request)


def test_a_body_is_taken_if_and_only_if_its_content_type_is_in_the_range_of_its_handler() -> None:
    with asyncio.Runner() as runner:
        runtime = Runtime("memory:", [Desk])
        client = serving(runtime)

        @given(st.sampled_from([*TAKES]), content_types(), st.booleans())
        @example("plain", FORM, True)
        @example("plain", "text/plain", True)
        @example("plain", f"{JSON}{OTHER_CHARSETS[0]}", True)
        @example("plain", f"{FORM}{OTHER_CHARSETS[0]}", True)
        @example("image", None, True)
        @example("image", None, False)
        @example("image", "image", True)
        def law(name: str, content_type: str | None, has_body: bool) -> None:
            body = BODIES.get(name, b"x") if has_body else b""
            answer = runner.run(answered(client, name, content_type, body))
            if fits(content_type, TAKES[name], body):
                if TAKES[name] == JSON and (content_type or "").endswith(OTHER_CHARSETS):
                    assert answer.status_code == 415
                    assert "UTF-8" in answer.json()["message"]
                else:
                    assert answer.status_code == 200, answer.text
            else:
                assert answer.status_code == 400
                assert answer.json()["source"] == "ingress"
                assert TAKES[name] in answer.json()["message"]
                assert f"Desk/{name}" in answer.json()["message"]

        runner.run(runtime.__aenter__())
        try:
            law()
        finally:
            runner.run(runtime.__aexit__(None, None, None))


@pytest.fixture
async def client() -> Any:
    async with Runtime("memory:", [Desk]) as runtime, serving(runtime) as client:
        yield client


@pytest.mark.parametrize("content_type", [None, "", JSON, FORM, "text/plain", "nonsense"])
async def test_a_handler_without_parameters_takes_no_body_whatever_its_type(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    assert (await answered(client, "nothing", content_type, b"")).status_code == 200
    refused = await answered(client, "nothing", content_type, b'"x"')
    assert (refused.status_code, refused.json()["source"]) == (400, "ingress")
    assert "expects an empty body" in refused.json()["message"]


@pytest.mark.parametrize(
    ("name", "sent", "given"),
    [
        ("plain", JSON, JSON),
        ("anything", "text/csv", "image/png"),
        ("image", "image/gif", "text/plain; charset=utf-8"),
        ("octets", "application/octet-stream", JSON),
        ("packed", "application/msgpack", "application/msgpack"),
        ("nothing", JSON, None),
    ],
)
async def test_the_answer_has_the_content_type_of_its_serde(
    client: httpx.AsyncClient, name: str, sent: str, given: str | None
) -> None:
    body = b"" if name == "nothing" else BODIES.get(name, b"x")
    answer = await answered(client, name, sent, body)
    assert answer.headers.get("content-type") == given
    keyed = httpx.Headers({"idempotency-key": "k", "content-type": sent})
    sending = await client.post(f"http://localhost/Desk/{name}/send", content=body, headers=keyed)
    attached = await client.get(f"http://localhost/restate/attach/{sending.json()['invocationId']}")
    assert (attached.headers.get("content-type"), attached.content) == (given, answer.content)


async def test_an_answer_without_bytes_has_no_content_type_however_it_is_asked_for(client: httpx.AsyncClient) -> None:
    answer = await answered(client, "anything", None, b"")
    repeated = {"idempotency-key": "empty"}
    first, second = [await client.post("http://localhost/Desk/anything", headers=repeated) for _ in range(2)]
    attached = await client.get(f"http://localhost/restate/attach/{first.headers['x-restate-id']}")
    for one in (answer, first, second, attached):
        assert (one.status_code, one.content, one.headers.get("content-type")) == (200, b"", None)


async def test_two_different_content_types_are_refused_and_two_equal_ones_are_one(client: httpx.AsyncClient) -> None:
    for second, status in ((JSON, 200), ("text/plain", 400)):
        both = [("content-type", JSON), ("content-type", second)]
        assert (await client.post("http://localhost/Desk/plain", content=b"1", headers=both)).status_code == status


async def test_a_refused_send_has_accepted_nothing(client: httpx.AsyncClient) -> None:
    url, typed = "http://localhost/Desk/plain/send", {"content-type": "text/csv", "idempotency-key": "k"}
    assert (await client.post(url, content=b"1", headers=typed)).status_code == 400
    accepted = await client.post(url, content=b"1", headers={"idempotency-key": "k"})
    assert accepted.json()["status"] == "Accepted"


class Odd(BytesSerde):
    def __init__(self, content_type: Any, accepts: Any = None) -> None:
        self.content_type = content_type
        self.accepts = accepts


@pytest.mark.parametrize(
    "serde",
    [
        BytesSerde(accepts="image"),
        BytesSerde(accepts="*/png"),
        BytesSerde("image/png\r\nx-evil: 1"),
        BytesSerde("bild/größe"),
        Odd(None),
        Odd("image/png", 5),
    ],
)
def test_a_serde_with_no_media_type_is_refused_at_definition(serde: Any) -> None:
    async def take(self: Any, ctx: Context, raw: bytes) -> bytes:
        return raw

    with pytest.raises(DefinitionError, match="media type"):
        handler(accepts=serde)(take)
    with pytest.raises(DefinitionError, match="media type"):
        handler(returns=serde)(take)


async def test_a_serde_says_what_it_takes_by_its_content_type_without_parameters() -> None:
    class Typed(JsonSerde[Any]):
        content_type = "application/vnd.shop+json; version=2"

    class Shop(Service):
        @handler(accepts=Typed(), returns=Typed())
        async def look(self, ctx: Context, value: Any) -> Any:
            return value

    async with Runtime("memory:", [Shop]) as runtime, serving(runtime) as client:
        url = "http://localhost/Shop/look"
        taken = await client.post(url, content=b"1", headers={"content-type": "application/vnd.shop+json"})
        assert taken.headers["content-type"] == Typed.content_type
        assert (await client.post(url, content=b"1", headers={"content-type": JSON})).status_code == 400
