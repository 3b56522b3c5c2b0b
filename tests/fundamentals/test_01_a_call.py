"""A virtual object is a class; each key is one of it. Its handlers are called by message, and the call is awaited."""

from __future__ import annotations

from durably import Context, ObjectContext, Service, VirtualObject, handler
from durably.testing import Harness


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello, {name}!"


class Door(VirtualObject):
    @handler
    async def knock(self, ctx: ObjectContext, times: int = 1) -> str:
        return " ".join([f"{self.key}: knock"] * times)


async def test_a_service_is_called_by_its_class() -> None:
    async with Harness(Greeter) as app:
        assert await app.service(Greeter).greet("Mary") == "Hello, Mary!"


async def test_an_object_is_called_by_its_class_and_key() -> None:
    async with Harness(Door) as app:
        assert await app.object(Door, "front").knock() == "front: knock"
        assert await app.object(Door, "back").knock(times=2) == "back: knock back: knock"


async def test_an_object_need_not_be_made_first() -> None:
    async with Harness(Door) as app:
        for number in range(3):
            assert await app.object(Door, f"door {number}").knock() == f"door {number}: knock"


async def test_handlers_call_each_other_through_their_context() -> None:
    class Postman(Service):
        @handler
        async def deliver(self, ctx: Context, key: str) -> str:
            return await ctx.object(Door, key).knock(2)

    async with Harness(Door, Postman) as app:
        assert await app.service(Postman).deliver("front") == "front: knock front: knock"


async def test_a_call_by_name_and_bytes_is_what_comes_over_http() -> None:
    async with Harness(Door) as app:
        assert await app.call("Door", "knock", b"2", key="front") == b'"front: knock front: knock"'
