"""Sagas, as both type checkers accept them."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from durably import Awakeable, Caller, Invocation, WorkflowContext, state
from durably.sagas import Saga, SagaBuilder, SagaDefinition, SagaState


@dataclass
class Data:
    order: str
    ticket: int | None = None
    approval: Awakeable[bool] | None = None


class Order(Saga[Data], retention=60):
    seen: list[int] = state(default=[])

    def define(self, saga: SagaBuilder[Data]) -> SagaDefinition[Data]:
        return (
            saga.step(self.create)
            .compensate(self.reject)
            .step(self.ticket, name="open a ticket")
            .on_reply(self.took)
            .compensate(self.reject)
            .step(self.ticket)
            .on_reply(self.took_later)
            .build()
        )

    async def create(self, ctx: WorkflowContext, data: Data) -> None:
        data.approval = ctx.awakeable(bool)

    def reject(self, ctx: WorkflowContext, data: Data) -> Awaitable[object]:
        return ctx.sleep(1)

    async def ticket(self, ctx: WorkflowContext, data: Data) -> int:
        return 1

    def took(self, ctx: WorkflowContext, data: Data, ticket: int) -> None:
        data.ticket = ticket

    async def took_later(self, ctx: WorkflowContext, data: Data, ticket: int | str) -> None:
        self.seen.append(2)


async def use(caller: Caller) -> Data:
    saga = caller.workflow(Order, "o")
    begun: SagaState[Data] = await saga.start(Data("o"))
    shown = await saga.state()
    ticket: int | None = shown.data.ticket
    undone: tuple[str, ...] = shown.compensated
    await saga.abort()
    sent: Invocation[Data] = await saga.run.send(Data("o"))
    print(begun.status, ticket, undone, sent.id)
    return await saga.run.attach()
