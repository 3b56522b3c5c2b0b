"""`durably migrate`: what the new classes of a model make of what is stored, and what it refuses to lose."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durably import Runtime
from durably.cli.failures import CommandError
from durably.cli.migrate import LossError, migrate_store
from durably.cli.projects import Program

MODULE = """
from durably.models import Machine, Model, TransitionContext, initial, transition

class Order(Model, prefix="order", index=("amount",)):
    amount: int
    buyer: str | None = None

class Created(Order): ...

class Paid(Order):
    reference: str

class Orders(Machine[Order], name="MigratedOrders"):
    @initial
    async def create(self, ctx: TransitionContext, amount: int, buyer: str | None = None) -> Created:
        return Created(amount=amount, buyer=buyer)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created, reference: str) -> Paid:
        return Paid.of(order, reference=reference)
"""


def classes(*changes: tuple[str, str]) -> Any:
    """The module with these changes: the code of another day."""
    source = MODULE
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    module = ModuleType("migrated_orders")
    exec(compile(source, "migrated_orders", "exec", dont_inherit=True), vars(module))
    return module


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an order that is created, and one that is paid."""
    path = tmp_path_factory.mktemp("migrate") / "orders.db"
    first = classes()

    async def fill() -> None:
        async with Runtime(path, [first.Orders]) as runtime:
            orders: Any = runtime.machine(first.Orders)
            await orders.create(amount=1)
            order, _ = await orders.create(amount=2, buyer="ann")
            await orders.pay(order, reference="a")

    asyncio.run(fill())
    return path


def migrate(path: Path, module: Any, *, allow_loss: bool = False) -> None:
    url = f"sqlite:///{path}"
    program = Program(target="orders", runtime=Runtime(url, [module.Orders]), main=None, store=url)
    migrate_store(program, allow_loss=allow_loss)


def rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select * from model_order order by amount").fetchall()


BUYER = ("    buyer: str | None = None\n", "")
UNBOUGHT = (", buyer: str | None = None", ""), (", buyer=buyer", "")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((BUYER, *UNBOUGHT), ["The field 'buyer' of 1 object of Order in the state 'paid'", "say --allow-loss"]),
        ([("amount: int\n", "amount: int\n    size: int\n"), ("amount=amount,", "amount=amount, size=1,")],
         ["1 object of Order could not be read as Created", "could not be read as Paid", "Give a new field a default"]),
        ([("amount: int\n", "amount: bool\n")], ["could not be read as Created"]),
        ([("Paid", "Settled")], ["1 object of Order in the state 'paid', which Order has no longer", "Keep the state"]),
        ([('prefix="order"', 'prefix="po"')], ["2 objects of Order with ids that do not begin with 'po_'"]),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_told_and_nothing_is_changed(stored: Path, changes: Any, told: list[str]) -> None:
    before = rows(stored)
    with pytest.raises(LossError) as refused:
        migrate(stored, classes(*changes))
    assert [text for text in ("Nothing was changed", *told) if text not in str(refused.value)] == []
    assert rows(stored) == before


def test_what_loses_nothing_or_may_is_done(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    migrate(stored, classes())
    assert capsys.readouterr().out == "Unchanged: model_order\n"
    size = ("amount: int\n", "amount: int\n    size: int = 7\n")
    migrate(stored, classes(size, ('("amount",)', '("amount", "size")')))
    assert "column size added, index model_order_by_size added" in capsys.readouterr().out
    migrate(stored, classes(BUYER, *UNBOUGHT), allow_loss=True)
    assert "index model_order_by_size removed" in capsys.readouterr().out
    assert [row[2] for row in rows(stored)] == [1, 2]


def test_a_store_that_runs_is_left_alone(stored: Path) -> None:
    async def run() -> None:
        module = classes()
        async with Runtime(stored, [module.Orders]):
            with pytest.raises(CommandError, match="in use"):
                await asyncio.to_thread(migrate, stored, module)

    asyncio.run(run())
