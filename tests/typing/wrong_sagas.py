# mypy: ignore-errors
# type: ignore  # noqa: PGH003
"""Sagas: each marked line is refused by both type checkers."""

from __future__ import annotations

from dataclasses import dataclass

from durably import Caller, ObjectContext, WorkflowContext
from durably.sagas import Saga, SagaBuilder, SagaDefinition


@dataclass
class Data:
    order: str


@dataclass
class Other:
    order: str


class Order(Saga[Data]):
    def define(self, saga: SagaBuilder[Data]) -> SagaDefinition[Data]:
        saga.step(self.of_another)  # refused: a step of a saga with other data
        saga.step(self.plain)  # refused: a step is awaited
        saga.step(self.create).compensate(self.of_another)  # refused: a compensation with other data
        saga.step(self.create).compensate(self.plain)  # refused: a compensation is awaited
        saga.step(self.create).on_reply(self.took_text)  # refused: the reply is a number
        saga.step(self.create).compensate(self.undo).on_reply(self.took_text)  # refused: the reply is a number
        return saga.step(self.create)  # refused: build() is forgotten

    async def create(self, ctx: WorkflowContext, data: Data) -> int:
        return 1

    async def undo(self, ctx: WorkflowContext, data: Data) -> None: ...

    def plain(self, ctx: WorkflowContext, data: Data) -> None: ...

    async def of_another(self, ctx: WorkflowContext, data: Other) -> None: ...

    def took_text(self, ctx: WorkflowContext, data: Data, reply: str) -> None: ...


async def use(caller: Caller) -> None:
    saga = caller.workflow(Order, "o")
    await saga.start(Other("o"))  # refused: other data
    begun = await saga.start(Data("o"))
    text: int = begun.data.order  # refused: it is text
    saga.abort()  # refused: the await is forgotten
    caller.object(Order, "o")  # refused: a saga is a workflow
    print(text, ObjectContext)
