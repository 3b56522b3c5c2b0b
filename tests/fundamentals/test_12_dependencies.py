"""What a class needs from outside is a parameter of its constructor, found by its annotation."""

from __future__ import annotations

import pytest

from durably import Context, DefinitionError, Service, handler
from durably.testing import Harness


class Mail:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, text: str) -> None:
        self.sent.append(text)


class Office(Service):
    def __init__(self, mail: Mail, greeting: str = "Hello") -> None:
        self.mail = mail
        self.greeting = greeting

    @handler
    async def write(self, ctx: Context, name: str) -> None:
        await ctx.run("mail", self.mail.send, f"{self.greeting}, {name}")


async def test_a_dependency_is_given_by_its_class() -> None:
    mail = Mail()
    async with Harness(Office, dependencies={Mail: mail}) as app:
        await app.service(Office).write("Mary")
    assert mail.sent == ["Hello, Mary"]


def test_one_that_is_missing_is_found_before_anything_runs() -> None:
    with pytest.raises(DefinitionError, match=r"asks for mail: .*Mail.*dependencies=\{.*Mail"):
        Harness(Office)
