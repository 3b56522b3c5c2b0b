"""`client`: a project for a test, in memory, with consumers that run within the calls that they follow from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably.actors.machines.project import Project
from durably.testing.harness.harness import Harness


def client(project: Project, *, dependencies: Mapping[Any, Any] | None = None, **options: Any) -> Harness:
    """The project's client for a test: everything is kept in memory, time is virtual, and a transition returns when its
    consumers have run.

        async with client(project) as app:
            order, _ = await app.machine(Orders).create(amount=100)

    `dependencies` take the place of the project's of the same classes. `options` are those of `Harness`.
    """
    return Harness(
        *project.actors,
        dependencies={**project.dependencies, **(dependencies or {})},
        middleware=project.middleware,
        consumers="inline",
        **options,
    )
