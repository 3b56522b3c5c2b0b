"""`DependencyContainer`: the factories of a runtime as a container of dishka, with a scope inside for each activation.

What is wrong with the factories has been found before (`Dependencies`), so the container sees none of a user's
annotations: each dependency has a class of its own here that stands for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from typing import Any, cast

from dishka import AsyncContainer, BaseScope, Provider, make_async_container, new_scope

from durably.actors.definition.dependencies import Asked, Dependencies
from durably.actors.dependencies import ActivationKey, DependencyScope, Factory
from durably.actors.values.descriptions import describe, named
from durably.errors import DefinitionError


class _Scope(BaseScope):
    RUNTIME = new_scope("RUNTIME")
    ACTIVATION = new_scope("ACTIVATION")


_SCOPES: Mapping[DependencyScope, BaseScope] = {"runtime": _Scope.RUNTIME, "activation": _Scope.ACTIVATION}


class DependencyContainer:
    """Makes each dependency once in its scope, when it is first asked for."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._stands_for: dict[Any, type] = {
            annotation: type(describe(annotation), (), {}) for annotation in (*dependencies.factories, ActivationKey)
        }
        provider = Provider()
        for annotation, asked in dependencies.factories.items():
            made: Factory[Any] = dependencies.given[annotation]
            provides = self._stands_for[annotation]
            provider.provide(self._source(annotation, made, asked), scope=_SCOPES[made.scope], provides=provides)
        provider.from_context(self._stands_for[ActivationKey], scope=_Scope.ACTIVATION)
        self._runtime = make_async_container(provider, scopes=_Scope, lock_factory=asyncio.Lock)

    async def made(self, asked: Asked, scope: AsyncContainer | None = None) -> dict[str, Any]:
        """What was asked for, by parameter."""
        container = self._runtime if scope is None else scope
        return {name: await container.get(self._stands_for[one]) for name, one in asked.made.items()}

    async def enter(self, key: str) -> AsyncContainer:
        """A scope for an activation."""
        return await self._runtime({self._stands_for[ActivationKey]: key}).__aenter__()

    async def close(self) -> None:
        """Tear down what was made for the runtime, the last first.

        Raises:
            ExceptionGroup: what tear-downs raised; each of them has been begun.
        """
        await self._runtime.close()

    def _source(self, annotation: Any, made: Factory[Any], asked: Asked) -> Callable[..., AsyncIterator[Any]]:
        """What dishka calls: it sees the parameters for which something is made, and a generator in all cases."""

        async def produce(**given: Any) -> AsyncIterator[Any]:
            try:
                value = made.make(**asked.values, **given)
                manager = _manager_of(value)
                if manager is None:
                    value = await value if inspect.isawaitable(value) else value
                else:
                    value = await manager.__aenter__()
            except Exception as error:
                error.add_note(f"The factory {named(made.make)} raised this; it makes {describe(annotation)}.")
                raise
            yield value
            if manager is not None:
                await manager.__aexit__(None, None, None)

        typed = cast(Any, produce)
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        typed.__annotations__ = {name: self._stands_for[one] for name, one in asked.made.items()}
        typed.__signature__ = inspect.Signature(
            [inspect.Parameter(name, keyword_only, annotation=one) for name, one in typed.__annotations__.items()]
        )
        return produce


def _manager_of(value: Any) -> contextlib.AbstractAsyncContextManager[Any] | None:
    """What sets up and tears down what a generator gives; None: the value is there, or is awaited."""
    if inspect.isasyncgen(value):
        return _Asynchronous(cast("AsyncGenerator[Any, None]", value))
    if inspect.isgenerator(value):
        return _Blocking(cast("Generator[Any, None, Any]", value))
    if _is_of_generator(value):
        return _Asynchronous(value.gen) if hasattr(value, "__aenter__") else _Blocking(value.gen)
    return None


def _is_of_generator(value: Any) -> bool:
    """It was made by a function under `contextmanager`. Other managers are dependencies: a lock is not to be held."""
    return type(value).__module__ == contextlib.__name__ and hasattr(value, "gen")


class _Asynchronous(contextlib.AbstractAsyncContextManager[Any]):
    """An asynchronous generator that gives one value, torn down by going on with it."""

    def __init__(self, generator: AsyncGenerator[Any, None]) -> None:
        self._generator = generator

    async def __aenter__(self) -> Any:
        try:
            return await anext(self._generator)
        except StopAsyncIteration:
            raise DefinitionError(_GAVE_NOTHING) from None

    async def __aexit__(self, *_: object) -> None:
        async for _ in self._generator:
            raise DefinitionError(_GAVE_TWO)


class _Blocking(contextlib.AbstractAsyncContextManager[Any]):
    """A plain generator, likewise."""

    def __init__(self, generator: Generator[Any, None, Any]) -> None:
        self._generator = generator

    async def __aenter__(self) -> Any:
        try:
            return next(self._generator)
        except StopIteration:
            raise DefinitionError(_GAVE_NOTHING) from None

    async def __aexit__(self, *_: object) -> None:
        for _ in self._generator:
            raise DefinitionError(_GAVE_TWO)


_GAVE_NOTHING = "A factory with `yield` ended without having given a dependency. Let it yield one."
_GAVE_TWO = "A factory yielded a second time when its dependency was torn down. Let it yield once."
