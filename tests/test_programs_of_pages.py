"""The programs on the pages about workflows, versions, combinators and operating run, and do what the pages say."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from textwrap import indent
from typing import Any

import pytest

import durably
from durably import TerminalError
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.processes import ROOT

PRELUDE = "import asyncio\nfrom datetime import *\nfrom typing import Any\nfrom durably import *\n"
RESIDENT = pytest.mark.parametrize("nothing_resident", [False, True], ids=["resident", "nothing-resident"])


def programs(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)


def ran(*code: str, **given: Any) -> dict[str, Any]:
    """What the code defines, with what the page leaves to its reader."""
    names = {"__name__": "of_a_page", **given}
    exec(compile("\n".join([PRELUDE, *code]), "a page", "exec", dont_inherit=True), names)
    return names


def as_handler(signature: str, body: str, *, base: str = "VirtualObject", context: str = "ObjectContext") -> str:
    """A class `Example` whose handler has this body."""
    head = f"class Example({base}):\n    @handler\n    async def go(self, ctx: {context}{signature}:\n"
    return head + indent(body, " " * 8)


# ---------------------------------------------------------------- workflows


@RESIDENT
async def test_somebody_signs_up(nothing_resident: bool) -> None:
    codes: list[str] = []

    def send_mail(email: str, code: str) -> None:
        codes.append(code)

    signup = ran(programs("workflows.md")[0], send_mail=send_mail)["Signup"]
    async with Harness(signup, nothing_resident=nothing_resident) as app:
        ann = app.workflow(signup, "ann")
        assert await ann.look() == "unknown"
        started = await ann.run.send("ann@example.org")
        await app.settle()
        await app.crash()
        assert await ann.look() == "waits for the code"
        await ann.confirm(codes[-1])
        assert await started.result()
        assert (await ann.look(), await ann.run.attach(), await ann.run.output()) == ("is signed up", True, True)
        assert (await ann.run.send("x")).previously_accepted


@RESIDENT
async def test_a_watch_polls_through_several_executions(nothing_resident: bool) -> None:
    class Carrier:
        def has_delivered(self, key: str, polls: int) -> bool:
            return polls == 7

    head = "class ParcelWatch(Workflow):\n    polls: int = state(default=0)\n    _carrier = Carrier()\n"
    watch = ran(head + indent(programs("workflows.md")[1], "    "), Carrier=Carrier)["ParcelWatch"]
    async with Harness(watch, nothing_resident=nothing_resident) as app:
        running = await app.workflow(watch, "42").run.send(3)
        await app.advance(hours=8)
        assert await running.result() == 7


# ---------------------------------------------------------------- versions


async def test_a_person_gets_two_names() -> None:
    old = ran(
        "class Person(VirtualObject):\n"
        "    name: str = state(default='')\n"
        "    @handler\n"
        "    async def rename(self, ctx: ObjectContext, name: str) -> None:\n"
        "        self.name = name\n"
    )["Person"]
    new = ran(*[code for code in programs("versions.md") if "class Person" in code])["Person"]
    assert new.split_name({"name": "Mary Smith"}) == {"first": "Mary", "last": "Smith"}
    store = MemoryStore()
    async with durably.Runtime(store, [old]) as runtime:
        for key in ("mary", "bob"):
            await runtime.object(old, key).rename("Mary Smith")
    async with durably.Runtime(store, [new], version="2026.11.3") as runtime:
        await runtime.object(new, "bob").rename("Bob", "Ross")
        assert await runtime.state(new, "bob") == {"first": "Bob", "last": "Ross"}


async def test_what_began_with_the_old_order_ends_with_it() -> None:
    done: list[str] = []
    began = asyncio.Event()

    def actions(*, is_open: bool) -> dict[str, Any]:
        async def ship() -> str:
            if not is_open:
                began.set()
                await asyncio.Event().wait()
            done.append("shipped")
            return "shipped"

        async def charge() -> str:
            done.append("charged")
            return "charged"

        return {"ship": ship, "charge": charge}

    new_code = next(code for code in programs("versions.md") if "class Orders" in code)
    old_code = re.sub(r" +if ctx\.patched.*\n.*\n", "", new_code)
    assert "patched" not in old_code
    store = MemoryStore()
    async with durably.Runtime(store, [ran(old_code, **actions(is_open=False))["Orders"]], drain=0) as runtime:
        begun = (await runtime.send("Orders", "place", key="a")).id
        await began.wait()
    orders = ran(new_code, **actions(is_open=True))["Orders"]
    async with durably.Runtime(store, [orders]) as runtime:
        assert await runtime.invocation(begun, list[str]).result() == ["shipped", "charged"]
        assert await runtime.object(orders, "b").place() == ["charged", "shipped"]
    assert done == ["shipped", "charged", "charged", "shipped"]


# ---------------------------------------------------------------- combinators


@RESIDENT
async def test_an_answer_is_waited_for_with_reminders(nothing_resident: bool) -> None:
    ids: list[str] = []

    def send_letter(id: str) -> None:
        ids.append(id)

    example = ran(as_handler(") -> bool", programs("combinators.md")[0]), send_letter=send_letter)["Example"]
    async with Harness(example, nothing_resident=nothing_resident) as app:
        asking = await app.object(example, "a").go.send()
        await app.advance(days=2)
        await app.crash()
        await app.resolve_awakeable(ids[0], True)
        assert await asking.result()
    assert len(ids) == 3
    assert len({*ids}) == 1


@RESIDENT
async def test_the_first_of_several_answers_counts(nothing_resident: bool) -> None:
    shop = (
        "class Shop(VirtualObject):\n"
        "    @handler\n"
        "    async def offer(self, ctx: ObjectContext) -> int:\n"
        "        await ctx.sleep(days=1 if self.key == 'there' else 0, seconds=1)\n"
        "        return 7\n"
    )
    names = ran(shop, as_handler(") -> list[Any]", f"{programs('combinators.md')[1]}return [name, offer]"))
    async with Harness(names["Shop"], names["Example"], nothing_resident=nothing_resident) as app:
        going = await app.object(names["Example"], "a").go.send()
        await app.advance(2)
        assert await going.result() == ["here", 7]


# ---------------------------------------------------------------- operating


OPERATING = programs("operations.md")


def operating(words: str) -> str:
    return next(code for code in OPERATING if words in code)


@dataclass
class Trip:
    id: str
    flight: str
    seat: str


@RESIDENT
@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_done_is_undone_last_first(nothing_resident: bool, fails: bool) -> None:
    told: list[str] = []

    class Payments:
        async def charge(self, id: str) -> None:
            told.append("charged")
            if fails:
                raise TerminalError("no money")

        async def refund(self, id: str) -> None:
            told.append("refunded")

    flight = (
        "class Flight(VirtualObject):\n"
        "    @handler\n"
        "    async def reserve(self, ctx: ObjectContext, seat: str) -> None:\n"
        "        await ctx.run('reserve', told.append, 'reserved')\n"
        "    @handler\n"
        "    async def release(self, ctx: ObjectContext, seat: str) -> None:\n"
        "        await ctx.run('release', told.append, 'released')\n"
        "class Trips(Service):\n"
        "    def __init__(self, payments: Payments) -> None:\n"
        "        self.payments = payments\n"
    )
    code = flight + indent(operating("ctx.compensations()"), "    ")
    names = ran(code, told=told, Payments=Payments, Trip=Trip)
    options: Any = {"dependencies": {Payments: Payments()}, "nothing_resident": nothing_resident}
    async with Harness(names["Flight"], names["Trips"], **options) as app:
        booking = app.service(names["Trips"]).book(Trip("t", "f", "2B"))
        if fails:
            with pytest.raises(TerminalError, match="no money"):
                await booking
        else:
            await booking
    assert told == ["reserved", "charged", *(["refunded", "released"] if fails else [])]


@RESIDENT
async def test_a_delayed_message_is_taken_back_and_a_call_has_an_id(nothing_resident: bool) -> None:
    others = (
        "class Seat(VirtualObject):\n"
        "    @handler\n"
        "    async def release(self, ctx: ObjectContext) -> None:\n"
        "        await ctx.run('release', told.append, 'released')\n"
        "class Printer(VirtualObject):\n"
        "    @handler\n"
        "    async def print(self, ctx: ObjectContext, document: str) -> int:\n"
        "        await ctx.sleep(1)\n"
        "        return len(document)\n"
    )
    body = f"seat, document = 's', 'four'\n{operating('expiry')}{operating('invocation_of')}return [job.id, pages]"
    told: list[str] = []
    names = ran(others, as_handler(") -> list[Any]", body), told=told)
    async with Harness(
        *(names[name] for name in ("Seat", "Printer", "Example")), nothing_resident=nothing_resident
    ) as app:
        going = await app.object(names["Example"], "a").go.send()
        await app.advance(hours=1)
        id, pages = await going.result()
    assert (id[:5], pages, told) == ("inv_1", 4, [])


async def test_operators_do_everything_that_the_page_lists() -> None:
    cart = (
        "class Cart(VirtualObject, retention=timedelta(days=1)):\n"
        "    @handler(journal_retention=timedelta(days=1))\n"
        "    async def checkout(self, ctx: ObjectContext) -> None:\n"
        "        for step in range(4):\n"
        "            await ctx.sleep(1)\n"
        "    @shared(journal_retention=timedelta(days=1))\n"
        "    async def look(self, ctx: SharedContext) -> None:\n"
        "        for step in range(4):\n"
        "            await ctx.sleep(1)\n"
    )
    cart_class = ran(cart)["Cart"]
    lines = [line.partition("#")[0].strip() for line in operating("runtime.kill").splitlines()]
    async with Harness(cart_class) as app:
        for line in lines:
            ends = any(word in line for word in ("purge", "again", "delete"))
            mary = app.object(cart_class, "mary")
            invocation = (
                await (mary.look if "from_step" in line else mary.checkout).options(idempotency_key=line).send()
            )
            await app.advance(10 if ends else 2)
            if "resume" in line or "restart(" in line:
                await app.pause("Cart/mary")
            names = {"runtime": app, "Cart": cart_class, "invocation": invocation}
            body = f"async def act():\n    {line.replace('inv_1...', invocation.id)}\n    return locals()\n"
            done = await ran(body, **names)["act"]()
            if "again" in line:
                assert done["again"].id != invocation.id
            await app.advance(10)
            await app.kill("Cart")
        assert len(lines) == 10
