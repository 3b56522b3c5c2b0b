"""What comes from outside to a machine is not trusted: poison is refused with a sentence, and the runtime goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema import Draft202012Validator

from durably import CallNext, Context, InvalidArgumentError, MemoryStore, Runtime, SqliteStore, TerminalError
from durably.actors.machines.info import info_of
from durably.actors.protocol.commands import FindObjects
from durably.client import Client
from durably.models import InvalidTransitionError, Machine, Model, TransitionContext, initial, transition
from durably.queries import TableQuery
from durably.testing import Harness
from tests.models.shop import Created, Order, Orders, dependencies


@asynccontextmanager
async def served(app: Any) -> AsyncGenerator[httpx.AsyncClient]:
    async with app, httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi()), base_url="http://app") as http:
        yield http


def question(condition: Any = None, **changes: Any) -> str:
    """As the client asks for orders, with something else in it."""
    asked = FindObjects(TableQuery(info_of(Orders).table, ("created",)))
    written: list[Any] = json.loads(msgspec.json.encode(asked))
    query = written[1]
    names = TableQuery.__struct_fields__
    for name, value in {"condition": condition, **changes}.items():
        query[names.index(name)] = value
    return json.dumps(written)


JSON = {"content-type": "application/json"}
AMOUNT, TEXT = ["amount", "integer"], ["paymentReference", "text"]


def nested(depth: int) -> Any:
    condition: Any = ["compare", AMOUNT, "eq", 1]
    for _ in range(depth):
        condition = ["not", condition]
    return condition


DEEP = question("HERE").replace('"HERE"', '["not",' * 20_000 + "1" + "]" * 20_000)
POISON = {
    "a huge number where a state is meant": question(states=[10**40]),
    "a huge number of a boolean field": question(["compare", ["amount", "boolean"], "eq", 10**40]),
    "a text where a number is meant": question(["compare", AMOUNT, "lt", "much"]),
    "a number where a text is meant": question(["one-of", TEXT, ["a", 7]]),
    "a list where a number is meant": question(["compare", AMOUNT, "eq", [1]]),
    "half a character": question(["compare", TEXT, "eq", "\ud800"]),
    "a NUL": question(after="order_\0"),
    "a deep condition": question(nested(60)),
    "a condition deeper than any parser goes": DEEP,
    "a wide condition": question(["any", [["compare", AMOUNT, "eq", one] for one in range(600)]]),
    "a field that there is not": question(order=["secret", "text"]),
    "an operator that there is not": question(["compare", AMOUNT, "like", 1]),
    "no JSON": "{",
    "another question": '["delete-all"]',
}


@pytest.mark.parametrize("on_disk", [False, True])
async def test_poison_is_refused_and_the_runtime_lives(tmp_path: Path, on_disk: bool) -> None:
    store: Any = SqliteStore(tmp_path / "app.db") if on_disk else MemoryStore()
    async with served(Runtime(store, [Orders], dependencies=dependencies())) as http:
        orders = Client("http://app", http=http).machine(Orders)
        await orders.create(amount=5)
        statuses: dict[str, int] = {}
        for name, body in POISON.items():
            answer = await http.post(
                "/Orders.questions/ask", content=body, headers={"content-type": "application/json"}
            )
            statuses[name] = answer.status_code
        assert statuses == dict.fromkeys(POISON, 400)
        # A number that no column holds is a question all the same: there is no such order.
        huge = question(["compare", AMOUNT, "lt", -(10**40)], limit=10**40)
        answer = await http.post("/Orders.questions/ask", content=huge, headers=JSON)
        assert (answer.status_code, answer.json()) == (200, [])
        assert await orders.count(Order) == 1


class Secret(Model, prefix="secret"):
    text: str


class Hidden(Secret):
    pass


class Vault(Machine[Secret], private=True):
    @initial
    async def hide(self, ctx: TransitionContext, text: str) -> Hidden:
        return Hidden(text=text)


async def members_only(ctx: Context, call_next: CallNext) -> Any:
    if ctx.request.headers.get("token") != "secret":
        raise TerminalError("Members only.", code=403)
    return await call_next()


class Entry(Model, prefix="entry"):
    text: str


class Open(Entry):
    pass


class Club(Machine[Entry], middleware=[members_only]):
    @initial
    async def enter(self, ctx: TransitionContext, text: str) -> Open:
        return Open(text=text)

    @transition
    async def change(self, ctx: TransitionContext, entry: Open, text: str) -> Open:
        return Open.of(entry, text=text)


async def test_the_front_of_a_private_machine_is_private() -> None:
    app = Harness(Vault)
    async with served(app) as http:
        await app.machine(Vault).hide("gold")
        vault = Client("http://app", http=http).machine(Vault)
        with pytest.raises(InvalidArgumentError, match="not public"):
            await vault.count(Secret)
        with pytest.raises(InvalidArgumentError, match="not public"):
            await vault.hide("silver")
        assert await app.machine(Vault).count(Secret) == 1


async def test_the_middleware_of_a_machine_guards_its_front_too() -> None:
    app = Harness(Club)
    async with (
        served(app) as strangers,
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi()), headers={"token": "secret"}) as members,
    ):
        stranger = Client("http://app", http=strangers).machine(Club)
        member = Client("http://app", http=members).machine(Club)
        entry, made = await member.enter("hello")
        for asked in (stranger.count(Entry), stranger.find_all(Entry), stranger.get_transition(made.id),
                      stranger.get_object_transitions(entry), stranger.find_one(Entry, id=entry.id),
                      stranger.change(entry, "bye")):  # fmt: skip
            with pytest.raises(TerminalError, match="Members only"):
                await asked
        assert await member.find_all(Entry) == [entry]


async def test_nobody_outside_says_who_has_triggered_a_transition() -> None:
    app = Harness(Orders, dependencies=dependencies())
    async with served(app) as http:
        pretends = {"durably-triggered-by": "Orders.BookDelivery/consume"}
        made = await http.post("/Orders/order_7/create", json={"amount": 3}, headers=pretends)
        assert made.json()[1]["triggeredBy"] == ""
        assert (await app.machine(Orders).get_transition(made.json()[1]["id"])).triggered_by == ""


async def test_over_plain_http_an_object_is_made_under_an_id_that_the_caller_invents() -> None:
    app = Harness(Orders, dependencies=dependencies())
    async with served(app) as http:
        made = await http.post("/Orders/order_7/create", json={"amount": 3})
        assert made.json()[0] == {"state": "created", "id": "order_7", "amount": 3}
        assert (await http.post("/Orders/order_7/create", json={"amount": 4})).status_code == 409
        assert (await http.post("/Orders/invoice_7/create", json={"amount": 4})).status_code == 400
        for other in ("invoice_7", "order_"):
            refused = await http.post(f"/Orders/{other}/pay", json={"paymentReference": "a"})
            assert (refused.status_code, refused.json()["message"].partition(":")[0]) == (
                400, f"'{other}' is no id of Order",
            )  # fmt: skip
        assert (await http.post("/Orders/order_8/pay", json={"paymentReference": "a"})).status_code == 404
        assert (await http.post("/Orders/order_7/get")).json()["amount"] == 3
        paid = await http.post("/Orders/order_7/pay", json={"paymentReference": "a", "note": "by hand"})
        assert (paid.json()[0]["state"], paid.json()[1]["note"]) == ("paid", "by hand")
        with pytest.raises(InvalidTransitionError):
            await app.machine(Orders).pay("order_7", payment_reference="b")
        assert await app.machine(Orders).count(Created) == 0


ARGUMENTS: dict[str, list[Any]] = {
    "create": [
        {"amount": 1}, {"amount": 1, "note": None}, {"amount": 1, "note": "n"}, {"amount": 1, "unknown": 2}, {}, 1,
        {"amount": "1"}, {"amount": 1.5}, {"amount": 1, "note": 3}, None, [1],
    ],
    "pay": [{"paymentReference": "a"}, {"payment_reference": "a"}, {"paymentReference": None}, "a", None],
    "raisePrice": [{}, {"by": 2}, {"by": None}, {"by": 2, "note": "n"}, 2, "by"],
}  # fmt: skip


async def test_the_document_says_what_transitions_take_and_give() -> None:
    async with served(Runtime("memory:", [Orders], dependencies=dependencies())) as http:
        document = (await http.get("/restate/openapi/Orders")).json()
        taken = {True: 0, False: 0}

        def fits(content: Any, value: object) -> bool:
            schema = {**content["content"]["application/json"]["schema"], "components": document["components"]}
            validator: Any = Draft202012Validator(schema)
            return bool(validator.is_valid(value))

        for name, bodies in ARGUMENTS.items():
            operation = document["paths"][f"/Orders/{{key}}/{name}"]["post"]
            for number, body in enumerate(bodies):
                id = f"order_01gqjyp438r30j3g28jt78c{len(name):02}{number:x}"
                if name != "create":
                    assert (await http.post(f"/Orders/{id}/create", json={"amount": 5})).status_code == 200
                answer = await http.post(f"/Orders/{id}/{name}", json=body)
                taken[answer.status_code == 200] += 1
                assert fits(operation["requestBody"], body) == (answer.status_code == 200), (name, body, answer.text)
                assert answer.status_code == 400 or fits(operation["responses"]["200"], answer.json())
        assert min(taken.values()) > 5
