"""What an ingress shows of itself: a page for people, and OpenAPI documents that say what handlers take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Mount

from durably import (
    BytesSerde,
    Context,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    shared,
)


@dataclass(frozen=True)
class Line:
    """A line of an order."""

    seat: str
    price: int = 40
    tags: frozenset[str] = field(default_factory=frozenset[str])


class Tree(msgspec.Struct):
    name: str
    below: list[Tree] = []


class Order(BaseModel):
    id: int = Field(gt=0)
    lines: list[Line] = []


class Other:
    """Has a class of the same name."""

    class Line(BaseModel):
        number: int = 0


class Desk(VirtualObject):
    """Sells <seats>."""

    @handler
    async def nothing(self, ctx: ObjectContext) -> None: ...

    @handler
    async def one(self, ctx: ObjectContext, line: Line) -> Line:
        """One <line>.

        And "more".
        """
        return line

    @handler
    async def tree(self, ctx: ObjectContext, tree: Tree) -> Tree:
        return tree

    @handler
    async def model(self, ctx: ObjectContext, order: Order) -> Order:
        return order

    @handler
    async def named_alike(self, ctx: ObjectContext, given: Other.Line) -> Other.Line:
        return given

    @handler
    async def several(
        self, ctx: ObjectContext, line: Line, when: date, *, mode: Literal["a", "b"] = "a"
    ) -> tuple[Line, date, str]:
        return line, when, mode

    @handler
    async def one_and_more(self, ctx: ObjectContext, amount: Annotated[int, Field(ge=0)], note: str = "-") -> list[Any]:
        return [amount, note]

    @shared
    async def image(self, ctx: SharedContext) -> None: ...

    @handler(accepts=BytesSerde(accepts="image/*"), returns=BytesSerde("image/png"))
    async def scale(self, ctx: ObjectContext, image: bytes) -> bytes:
        return image

    @handler(private=True)
    async def hidden(self, ctx: ObjectContext) -> None: ...


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> datetime:
        return datetime(2027, 1, 1, tzinfo=UTC)


class Inner(Service, private=True):
    @handler
    async def work(self, ctx: Context, n: int) -> int:
        return n


class Plain(Service):
    @handler
    async def untyped(self, ctx: Context, value: Any) -> Any:
        return value


@asynccontextmanager
async def serving(mount: str = "", *, pages: bool = True) -> AsyncGenerator[httpx.AsyncClient]:
    async with Runtime("memory:", [Desk, Signup, Inner, Plain]) as runtime:
        ingress = runtime.asgi(pages=pages)
        application = Starlette(routes=[Mount(mount, ingress)]) if mount else ingress
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://app") as client:
            yield client


async def test_the_documents_are_valid_and_name_what_is_public_and_nothing_else() -> None:
    async with serving() as client:
        whole = (await client.get("/restate/openapi")).json()
        validate(whole)
        desk = (await client.get("/restate/openapi/Desk")).json()
        validate(desk)
        assert [tag["name"] for tag in whole["tags"]] == ["Desk", "Signup", "Plain"]
        assert {path for path in whole["paths"] if path.startswith("/Desk")} == set(desk["paths"])
        assert "/Desk/{key}/one/send" in desk["paths"]
        assert "/restate/workflow/Signup/{key}/attach" in whole["paths"]
        assert not [path for path in whole["paths"] if "hidden" in path or "Inner" in path]
        scale = desk["paths"]["/Desk/{key}/scale"]["post"]
        assert scale["requestBody"]["content"] == {"image/*": {}}
        assert scale["responses"]["200"]["content"] == {"image/png": {}}
        assert (await client.get("/restate/openapi/Nothing")).status_code == 404


lines = st.fixed_dictionaries({"seat": st.text(max_size=3), "price": st.integers(-5, 5)})
trees = st.fixed_dictionaries({"name": st.text(max_size=2)})
values: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), lines, st.fixed_dictionaries({"line": lines}),
    st.fixed_dictionaries({"name": st.text(max_size=2), "below": st.lists(trees, max_size=2)}),
    st.fixed_dictionaries({"id": st.integers(-1, 2), "lines": st.lists(lines, max_size=2)}),
    st.fixed_dictionaries({"line": lines, "when": st.just("2027-01-02"), "mode": st.sampled_from("abc")}),
    st.fixed_dictionaries({"amount": st.integers(-2, 2), "note": st.text(max_size=2)}),
    st.fixed_dictionaries({"number": st.integers(-2, 2)}), st.fixed_dictionaries({"unknown": st.integers()}),
)  # fmt: skip
NAMES = ("one", "tree", "model", "named_alike", "several", "one_and_more")


def test_a_body_fits_its_schema_if_and_only_if_its_handler_takes_it_and_so_does_the_result() -> None:
    with asyncio.Runner() as runner:
        context = serving()
        client = runner.run(context.__aenter__())
        document = runner.run(client.get("/restate/openapi/Desk")).json()

        def fits(schema: dict[str, Any], value: Any) -> bool:
            validator: Any = Draft202012Validator({**schema, "components": document["components"]})
            return bool(validator.is_valid(value))

        @given(st.sampled_from(NAMES), values)
        @example("several", {"line": {"seat": "2B"}})
        @example("several", {"line": {"seat": "2B"}, "when": "2027-01-02", "mode": "c"})
        @example("one", {"price": 1})
        @example("one", {"seat": "2B", "color": "red"})
        @example("one", {"seat": "2B", "tags": ["a", "a"]})
        @example("model", {"id": 1, "lines": [{"seat": "2B", "tags": ["a", "a"]}]})
        @example("tree", {"name": "a", "color": "red"})
        @example("model", {"id": 1, "lines": [{"seat": "2B", "color": "red"}]})
        @example("several", {"line": {"seat": "2B", "color": "red"}, "when": "2027-01-02"})
        @example("one_and_more", -1)
        @example("one_and_more", {"amount": 1, "note": "n"})
        @example("model", {"id": 0})
        @example("tree", {"name": "a", "below": [{"below": []}]})
        @example("tree", {"name": "a", "below": [{"name": "b"}]})
        def law(name: str, value: Any) -> None:
            operation = document["paths"][f"/Desk/{{key}}/{name}"]["post"]
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            result = operation["responses"]["200"]["content"]["application/json"]["schema"]
            answer = runner.run(client.post(f"/Desk/a/{name}", json=value))
            assert answer.status_code in (200, 400), answer.text
            if answer.status_code == 200:
                assert fits(body, value)
                assert fits(result, answer.json())
            else:
                assert not fits(body, value), answer.text

        law()
        runner.run(context.__aexit__(None, None, None))


@pytest.mark.parametrize("mount", ["", "/product"])
async def test_the_page_at_the_root_is_for_browsers_and_knows_where_it_is_mounted(mount: str) -> None:
    async with serving(mount) as client:
        page = await client.get(f"{mount}/", headers={"accept": "text/html,*/*;q=0.8"})
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert f'<base href="{mount}/">' in page.text
        assert "Sells &lt;seats&gt;." in page.text
        assert "one(line: Line) -&gt; Line" in page.text
        assert "hidden" not in page.text
        assert "Inner" not in page.text
        document = (await client.get(f"{mount}/restate/openapi")).json()
        assert document["servers"] == [{"url": mount or "/"}]
        elsewhere = await client.get(f"{mount}/openapi")
        assert elsewhere.status_code == 404
        assert "/restate/openapi" in elsewhere.json()["message"]
        for accept in ("*/*", "application/json"):
            refused = await client.get(f"{mount}/", headers={"accept": accept})
            assert refused.status_code == 400
            assert "bad path" in refused.text


async def test_it_shows_nothing_of_itself_where_that_is_not_wanted() -> None:
    async with serving(pages=False) as client:
        assert (await client.get("/", headers={"accept": "text/html"})).status_code == 400
        assert (await client.get("/restate/openapi")).status_code == 404
        assert (await client.get("/openapi")).status_code == 404
        assert (await client.get("/restate/health")).status_code == 200
