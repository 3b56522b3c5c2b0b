"""`durably generate`: which modules it writes, and that they are right."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from durably.actors.machines.model import index_of
from durably.cli.commands import application
from durably.model_files import GenerationError, generate
from durably.testing import Harness
from tests.typing.test_typing import mypy, pyright

HERE = Path(__file__).parent
PROGRAM = """
from __future__ import annotations

from typing import final

from durably import Caller, models
from order import Created, DeliveryBooked, Order, OrderMachine, Paid


@final
class Orders(OrderMachine):
    @models.initial
    async def create(self, ctx: models.TransitionContext, amount: int) -> Created:
        return Created(amount=amount)

    @models.transition
    async def pay(self, ctx: models.TransitionContext, order: Created, payment_reference: str) -> Paid:
        return Paid.of(order, payment_reference=payment_reference)

    @models.transition
    async def book_delivery(self, ctx: models.TransitionContext, order: Paid) -> DeliveryBooked:
        return DeliveryBooked.of(order, tracking_number=order.payment_reference)


@final
class Incomplete(OrderMachine):  # refused: book_delivery is missing
    @models.initial
    async def create(self, ctx: models.TransitionContext, amount: str) -> Created:  # refused: another argument
        return Created(amount=len(amount))

    @models.transition
    async def pay(self, ctx: models.TransitionContext, order: Order, payment_reference: str) -> Paid:  # refused: source
        return Paid.of(order, payment_reference=payment_reference)


class Wrong(OrderMachine):
    @models.initial
    async def create(self, ctx: models.TransitionContext, amount: int, more: int) -> Created:  # refused: one more
        return Created(amount=amount)

    async def pay(self, ctx: models.TransitionContext, order: Created, payment_reference: str) -> Paid:  # refused: bare
        return Paid.of(order, payment_reference=payment_reference)

    @models.transition
    async def book_delivery(self, ctx: models.TransitionContext, order: Paid) -> Created:  # refused: another target
        return Created.of(order)


async def use(caller: Caller) -> str:
    orders = caller.machine(Orders)
    order, made = await orders.create(amount=1)
    await orders.create(amount="1")  # refused: no number
    await orders.book_delivery(order)  # refused: not paid
    paid, _ = await orders.pay(order, payment_reference="abc")
    booked, _ = await orders.book_delivery(paid)
    paid.tracking_number  # refused: not booked
    return booked.tracking_number + made.id
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Order.rst", "Shop.rst"):
        shutil.copy(HERE / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def modules(folder: Path) -> Iterator[dict[str, ModuleType]]:
    made = generate(folder)
    found: dict[str, ModuleType] = {}
    for path in made.written:
        name = f"generated_models_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[path.stem] = module
    yield found
    for module in found.values():
        del sys.modules[module.__name__]


def test_each_model_is_a_module_formatted_as_ruff_would(folder: Path) -> None:
    written = [path.name for path in generate(folder).written]
    assert written == [
        "order.py", "types_test.py", "state_with_non_nullable_field.py",
        "an_insanely_long_model_name_for_an_insane_project.py", "user.py",
    ]  # fmt: skip
    ruff = [sys.executable, "-m", "ruff"]
    checks = "E,F,W,I,UP,B,RUF,D3,PIE"
    for command in (["format", "--isolated", "--diff"], ["check", "--isolated", "--select", checks]):
        done = subprocess.run([*ruff, *command, "."], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_only_what_changes_is_written_and_what_was_not_generated_is_left_alone(folder: Path) -> None:
    def stamps() -> dict[str, tuple[int, int, str]]:
        found = {path.name: (path.stat(), path.read_text()) for path in folder.glob("*.py")}
        return {name: (status.st_ino, status.st_mtime_ns, text) for name, (status, text) in found.items()}

    generate(folder)
    before = stamps()
    again = generate(folder)
    assert (again.written, again.removed, stamps()) == ([], [], before)
    shop = folder / "Shop.rst"
    shop.write_text(shop.read_text().replace("model User", "model Person"))
    changed = generate(folder)
    assert ([one.name for one in changed.written], [one.name for one in changed.removed]) == (
        ["person.py"],
        ["user.py"],
    )
    del before["user.py"]
    assert stamps().items() >= before.items()
    (folder / "item.py").write_text("MINE = 1\n")
    (folder / "Item.rst").write_text("model Item {}\n")
    (folder / "Order.rst").write_text("model Order {}\n")
    with pytest.raises(GenerationError, match=r"item\.py is there already and was not generated"):
        generate(folder)
    assert stamps().items() >= before.items()


async def test_a_generated_machine_runs_when_it_is_implemented(modules: dict[str, ModuleType]) -> None:
    names = vars(modules["order"])
    orders_class = PROGRAM[PROGRAM.index("@final") : PROGRAM.index("@final\nclass Incomplete")]
    exec(compile(f"from typing import final\n{orders_class}", "program", "exec", dont_inherit=True), names)
    Orders: Any = names["Orders"]  # noqa: N806 - the class
    async with Harness(Orders) as app:
        orders: Any = app.machine(Orders)
        created, made = await orders.create(100)
        assert re.fullmatch("order_[0-9a-z]{26}", created.id)
        await orders.pay(created, payment_reference="abc123")
        booked, made = await orders.book_delivery(created.id)
        assert made.name == "bookDelivery"
        assert msgspec.to_builtins(booked) == {
            "state": "deliveryBooked", "id": created.id, "amount": 100, "paymentReference": "abc123",
            "trackingNumber": "abc123",
        }  # fmt: skip


def test_names_are_on_the_wire_as_they_stand_in_the_file(modules: dict[str, ModuleType]) -> None:
    types: Any = modules["types_test"]
    fields = ["string", "integer", "decimal", "optional", "boolean", "class"]
    assert types.Created.__struct_encode_fields__ == ("id", *fields)
    assert types.Fourth.__struct_encode_fields__[7:] == ("aVeryLongFieldNameThatGoesOnAndOn", "last", "typesTest")
    assert index_of(types.TypesTest) == ("string", "class_")
    assert types.TypesTestMachine.return_.name == "return"
    assert not isinstance(
        types.Third(string="", integer=1, decimal=1, boolean=True, a_very_long_field_name_that_goes_on_and_on=""),
        types.Second,
    )


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_accept_what_is_generated_and_refuse_a_wrong_implementation(checker: Any, folder: Path) -> None:
    generate(folder)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    refused = checker(folder, [program.name, "order.py", "types_test.py"])
    lines = PROGRAM.splitlines()
    assert {name for name, _ in refused} == {program.name}
    assert {lines[at - 1] for _, at in refused} == {line for line in lines if "# refused" in line}


def test_the_command_tells_what_it_has_done_and_what_is_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(application, ["generate", "."])
    assert done.stdout.splitlines()[0] == "Written: order.py"
    assert CliRunner().invoke(application, ["generate", "."]).stdout.startswith("Unchanged: order.py, ")
    refused = CliRunner().invoke(application, ["generate"])
    assert "durably generate FOLDER" in str(refused.exception)
    (folder / "Bad.rst").write_text("model")
    assert "Bad.rst, line 1" in str(CliRunner().invoke(application, ["generate", "."]).exception)
