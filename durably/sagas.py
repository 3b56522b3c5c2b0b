"""Sagas: workflows given as steps with compensations. A saga ends completed, or with each completed step undone.

    class CreateOrder(Saga[OrderData]):
        def define(self, saga: SagaBuilder[OrderData]) -> SagaDefinition[OrderData]:
            return (
                saga.step(self.create).compensate(self.reject)
                .step(self.create_ticket).on_reply(self.ticket_created)
                .build()
            )

    status = await caller.workflow(CreateOrder, "order-1").start(OrderData(...))

A saga is a workflow, so a step is a stretch of its `run`: what it calls, awaits and keeps is journaled as in any
handler, and there is no second engine. What undoes a saga is a `finally` that a cancel cannot break off.
"""

# pyright: reportPrivateUsage=false
# A saga waits for a person, and undoes in spite of cancels, through the port of its execution.

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

import msgspec

from durably.actors.actor import REFERENCE_MARK, Workflow
from durably.actors.compensations import fails_for_good, undisturbed
from durably.actors.context import SharedWorkflowContext, WorkflowContext
from durably.actors.decorators import handler, shared
from durably.actors.definition.definition import definition_of
from durably.actors.definition.scope import Scope
from durably.actors.promises import DurablePromise, promise
from durably.actors.protocol.commands import AwaitResume, IdentifyRun, SendAnswer
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.select import select
from durably.actors.state import state as state_field
from durably.actors.values.descriptions import MISSING, describe, named, shortened
from durably.actors.values.error_envelopes import TIMEOUT_CODE, terminal
from durably.actors.values.serde import codec_for
from durably.actors.values.type_codec import TypeCodec
from durably.errors import (
    ActionTimeoutError,
    AlreadyCompletedError,
    AlreadyStartedError,
    CancelledInvocationError,
    DeadlineExceededError,
    DefinitionError,
    HandlerMistakeError,
    TerminalError,
    UnencodableError,
    UnknownTargetError,
)
from durably.ids import InvocationStatus

__all__ = ["Saga", "SagaBuilder", "SagaDefinition", "SagaState", "SagaStatus", "SagaStep"]

D = TypeVar("D")
R = TypeVar("R")

SagaStatus: TypeAlias = Literal["running", "completed", "compensating", "compensated", "compensation-paused", "killed"]
"""`compensation-paused`: a compensation cannot succeed, and the saga waits until its invocation is resumed. `killed`:
its invocation was ended without its code, so nothing was undone."""

_STARTED = "saga-started"
"""The promise that the first `start` completes, where another engine keeps the journal."""

_INTERRUPTED = (
    asyncio.CancelledError, TimeoutError, CancelledInvocationError, DeadlineExceededError, ActionTimeoutError,
)  # fmt: skip
"""What a step raises that was broken off: its effects may have happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaState(Generic[D]):
    """What a saga shows of itself at any time."""

    step: int
    """How many steps are behind it; while it is being undone and afterwards, the one that did not succeed."""
    step_name: str | None
    """The step that runs, or that did not succeed; None when all are done."""
    status: SagaStatus
    data: D
    compensated: tuple[str, ...]
    """The names of the steps that were undone, in this order."""
    failure: str | None
    """Why it is being undone, or why a compensation waits for a person."""
    invocation_id: str
    """Its `run`: what is cancelled, resumed or looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """What is kept of a saga beside its data."""

    invocation_id: str
    step: int = 0
    step_name: str | None = None
    status: SagaStatus = "running"
    compensated: tuple[str, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun(Generic[D]):
    """What is known of a saga before it has kept anything."""

    invocation_id: str
    data: D


@dataclass(slots=True, kw_only=True)
class _Step(Generic[D]):
    """One step while it is being defined."""

    name: str
    invoke: Callable[[WorkflowContext, D], Awaitable[Any]]
    undo: Callable[[WorkflowContext, D], Awaitable[Any]] | None = None
    use: Callable[[WorkflowContext, D, Any], Awaitable[None] | None] | None = None


@dataclass(frozen=True, slots=True)
class SagaDefinition(Generic[D]):
    """The steps of a saga, as `build()` gives them."""

    steps: Sequence[_Step[D]]


class SagaBuilder(Generic[D]):
    """What `define` is given: `saga.step(...).compensate(...).on_reply(...).step(...).build()`."""

    def __init__(self) -> None:
        self._steps: list[_Step[D]] = []

    def step(
        self, invoke: Callable[[WorkflowContext, D], Awaitable[R]], /, *, name: str | None = None
    ) -> SagaStep[D, R]:
        """Add a step: a method that takes the context and the data of the saga.

        It calls services and objects, runs actions, waits for awakeables, and changes the data as it likes: the data is
        kept. `name` is what `state` calls the step, the method's name if left out.

        Raises:
            DefinitionError: another step has this name.
        """
        step = _Step(name=name or _name_of(invoke), invoke=invoke)
        if any(one.name == step.name for one in self._steps):
            raise DefinitionError(
                f"A saga has two steps named {step.name!r}, and its state tells them apart by name. Write step(..., "
                "name=...)."
            )
        self._steps.append(step)
        return SagaStep(self._steps, step)

    def build(self) -> SagaDefinition[D]:
        """The definition, for `define` to return.

        Raises:
            DefinitionError: there is no step.
        """
        if not self._steps:
            raise DefinitionError("A saga has no steps. Write `return saga.step(self.first).build()`.")
        return SagaDefinition(tuple(self._steps))


class SagaStep(SagaBuilder[D], Generic[D, R]):
    """The step that was added last: what belongs to it, and what comes after it."""

    def __init__(self, steps: list[_Step[D]], step: _Step[D]) -> None:
        self._steps = steps
        self._step = step

    def compensate(self, undo: Callable[[WorkflowContext, D], Awaitable[Any]], /) -> SagaStep[D, R]:
        """Say what undoes the step. It runs if the saga fails or is aborted after the step is done, or after a cancel
        or a time limit broke the step off, when its outcome is unknown; so it has to bear that nothing was done.

        It does not run for a step that itself failed for good. Where it fails for good, and a person has resumed the
        saga, it runs again from its beginning: what it had done by then is done again, so give each effect a step.

        Raises:
            DefinitionError: the step has a compensation.
        """
        if self._step.undo is not None:
            raise DefinitionError(f"The step {self._step.name!r} of a saga has two compensations. Leave one.")
        self._step.undo = undo
        return self

    def on_reply(self, use: Callable[[WorkflowContext, D, R], Awaitable[None] | None], /) -> SagaStep[D, R]:
        """Say what is done with what the step returns: a method, `async` or not, that also takes the reply.

        The step is done before that: if this fails for good, the step is undone with the others.

        Raises:
            DefinitionError: the step has one.
        """
        if self._step.use is not None:
            raise DefinitionError(f"The step {self._step.name!r} of a saga has on_reply() twice. Leave one.")
        self._step.use = use
        return self


class Saga(Workflow, Generic[D], abstract=True):
    """A workflow given as steps with compensations: `class CreateOrder(Saga[OrderData])`, with a method `define`.

    `D` is the data that the steps share. It is given to `start`, kept with each step that changes it, and what `run`
    returns in the end. Further state is declared as in any workflow.
    """

    _progress: _Progress | None = state_field(default=None, name="saga")
    _data: D = state_field(name="data")
    _begun: DurablePromise[_Begun[D]] = promise(name="saga")
    """Completed by whichever of `start` and `run` comes first."""

    def __init_subclass__(cls, **options: Any) -> None:
        """The class keywords are those of a `Workflow`.

        Raises:
            DefinitionError: the class cannot work; says what to write.
        """
        super().__init_subclass__(**options)
        if REFERENCE_MARK not in vars(cls) and not options.get("abstract"):
            _check(cls)

    def define(self, saga: SagaBuilder[D]) -> SagaDefinition[D]:
        """The steps. It is called once for each attempt, and once when the class is defined, without a constructor; so
        it names methods and calls nothing.
        """
        raise NotImplementedError

    @handler
    async def run(self, ctx: WorkflowContext, data: D) -> D:
        """The saga from its first step to its end; `start` begins it without waiting.

        Raises:
            TerminalError: what the step that failed has raised; what was done is undone.
            CancelledInvocationError: it was aborted; what was done is undone.
        """
        steps = self.define(SagaBuilder()).steps
        self._progress, self._data = _Progress(invocation_id=ctx.request.id, step_name=steps[0].name), data
        await _Running(self, ctx, steps).run()
        return self._data

    @shared
    async def start(self, ctx: SharedWorkflowContext, data: D) -> SagaState[D]:
        """Begin the saga; its first state. To begin it if it has not begun, send to `run`.

        Raises:
            AlreadyStartedError: a saga of this id was started before.
        """
        if ctx._port.is_hosted and not await self._is_first(ctx):
            raise self._started_before()
        sent = await self.run.send(data)
        if sent.previously_accepted:
            raise self._started_before()
        begun = _Begun(invocation_id=sent.id, data=data)
        with suppress(AlreadyCompletedError):
            await self._begun.resolve(begun)
        return _shown(self._at_first(begun), data)

    @shared
    async def state(self, ctx: SharedWorkflowContext) -> SagaState[D]:
        """The saga as it is now; of one that was sent to `run` and has not begun, once it begins.

        Raises:
            UnknownTargetError: no saga of this id was started.
            CancelledInvocationError: it was sent to `run`, and cancelled before it began.
        """
        if ctx._port.is_hosted:
            return _shown(*await self._kept())
        progress, data = await self._found(ctx)
        if progress.status in ("completed", "compensated"):
            return _shown(progress, data)
        status = await ctx.invocation(progress.invocation_id).status()
        if self._progress is not None:  # As it is by now.
            progress, data = self._progress, self._data
        elif status is InvocationStatus.COMPLETED:  # It ended before it began: there is nothing to be undone.
            error = await _error_of(ctx.workflow(type(self), self.key).run.attach())
            progress = replace(progress, status="compensated", failure=None if error is None else _in_words(error))
        if status is InvocationStatus.PAUSED and progress.status == "compensating":
            progress = replace(progress, status="compensation-paused")
        elif status is InvocationStatus.COMPLETED and progress.status not in ("completed", "compensated"):
            progress = replace(progress, status="killed")
        return _shown(progress, data)

    @shared
    async def abort(self, ctx: SharedWorkflowContext) -> None:
        """Cancel the saga: its steps are undone. One that has not begun ends at once; one that has ended, or is being
        undone, goes on as it is.

        Raises:
            UnknownTargetError: no saga of this id was started.
        """
        if ctx._port.is_hosted:
            progress, _ = await self._kept()
            if progress.status == "running":
                await ctx.invocation(progress.invocation_id).cancel()
        elif self._progress is None:  # It has not begun, or was restarted and has not begun again.
            command = IdentifyRun(definition_of(type(self)).name, self.key)
            site = CallSite(frame_above(0))
            await ctx.invocation(await ctx._port.issue(command, _identified, "the run of the saga", site)).cancel()
        elif self._progress.status == "running":
            await ctx.invocation(self._progress.invocation_id).cancel()

    async def _found(self, ctx: SharedWorkflowContext) -> tuple[_Progress, D]:
        """How far it is, with its data; what was accepted and is not known yet is waited for."""
        if self._progress is None:
            run = ctx.workflow(type(self), self.key).run.attach()
            # Both may come at once, and an error that is not awaited would be a mistake of this handler.
            _, error = await select(begun=_error_of(_awaited(self._begun)), ended=_error_of(run))
            if self._progress is None:
                begun = await self._begun.peek()
                if begun is not None:
                    return self._at_first(begun), begun.data
                assert error is not None
                raise error
        return self._progress, self._data

    # ------------------------------------------------------------------ where another engine keeps the journal

    # It tells a handler neither whether a message joined an earlier one, nor how an invocation stands. So the
    # start of a saga is noted in promises, and its state tells how far it was when the saga last kept that.

    async def _is_first(self, ctx: SharedWorkflowContext) -> bool:
        """No saga of this id was started, or has begun; from now on one was started."""
        if await self._begun.peek() is not None:
            return False
        try:
            await ctx.promise(_STARTED, bool).resolve(True)
        except AlreadyCompletedError:
            return False
        return True

    async def _kept(self) -> tuple[_Progress, D]:
        """What it has kept of itself."""
        if self._progress is not None:
            return self._progress, self._data
        begun = await self._begun.peek()
        if begun is None:
            name = definition_of(type(self)).name
            raise UnknownTargetError(f"No saga {name}/{self.key} was started, or it has not begun yet.")
        return self._at_first(begun), begun.data

    def _started_before(self) -> AlreadyStartedError:
        name = definition_of(type(self)).name
        return AlreadyStartedError(f"The saga {name}/{self.key} was started before. Ask for its `state`.")

    def _at_first(self, begun: _Begun[D]) -> _Progress:
        first = self.define(SagaBuilder()).steps[0]
        return _Progress(invocation_id=begun.invocation_id, step_name=first.name)


class _Running(Generic[D]):
    """One attempt of a saga."""

    def __init__(self, saga: Saga[D], ctx: WorkflowContext, steps: Sequence[_Step[D]]) -> None:
        self._saga = saga
        self._ctx = ctx
        self._steps = steps
        self._done: list[_Step[D]] = []
        """What is to be undone if it fails."""

    async def run(self) -> None:
        saga = self._saga
        self._ctx._port.has_to_undo(1)
        try:
            # The saga is visible before its first step can fail. One that was restarted has begun before.
            with suppress(AlreadyCompletedError):
                await saga._begun.resolve(_Begun(invocation_id=self._ctx.request.id, data=saga._data))
            for number, step in enumerate(self._steps):
                self._note(step=number, step_name=step.name)
                await self._do(step)
        except BaseException as error:
            if not fails_for_good(self._ctx._port, error):
                raise
            self._note(failure=_in_words(self._ctx._port.failure or error))
            await undisturbed(self._ctx._port, self._undo())
            if terminal(error) is None:
                raise asyncio.CancelledError from error
            raise
        self._note(status="completed", step=len(self._steps), step_name=None)

    async def _do(self, step: _Step[D]) -> None:
        ctx, data = self._ctx, self._saga._data
        try:
            reply = await _awaitable(step.invoke, ctx, data)
        except BaseException as error:
            if ctx._port.takes_cancel or _is_interrupted(error):
                self._done.append(step)
            raise
        self._done.append(step)
        if step.use is not None:
            _check_reply(type(self._saga), step, reply)
            used = step.use(ctx, data, reply)
            if used is not None:
                await used

    async def _undo(self) -> None:
        undone = [(step, step.undo) for step in reversed(self._done) if step.undo is not None]
        if undone:
            self._note(status="compensating")
            await self._saga._begun.peek()  # A step of its own: what is visible says so before any of it fails.
        for step, undo in undone:
            await self._compensate(step, undo)
            self._note(compensated=(*self._progress.compensated, step.name))
        self._note(status="compensated")

    async def _compensate(self, step: _Step[D], undo: Callable[[WorkflowContext, D], Awaitable[Any]]) -> None:
        """Undo a step; where that fails for good, once more whenever a person has resumed the invocation.

        Once more from its beginning: it has taken the failure in, which is recorded, so it cannot go on behind it.
        """
        failure = self._progress.failure
        while True:
            try:
                await _awaitable(undo, self._ctx, self._saga._data)
                return
            except BaseException as error:
                if terminal(error) is None:
                    raise
                cause = _in_words(error)
            name = definition_of(type(self._saga)).name
            failed = f"The compensation of the step {step.name!r} of {name}/{self._saga.key} failed for good: {cause}"
            again = "the compensation is tried again, from its beginning."
            if self._ctx._port.is_hosted:  # Nothing else of a person's reaches a handler there.
                mended = self._ctx.awakeable()
                reason = f"{failed} Mend the cause and resolve the awakeable {mended.id}: {again}"
                self._note(status="compensation-paused", failure=reason)
                self._ctx.log.error(reason)
                with suppress(TerminalError):  # A rejection says as much.
                    await mended
            else:
                reason = f"{failed} Mend the cause and resume it: {again}"
                self._note(status="compensation-paused", failure=reason)
                await self._ctx._port.issue(AwaitResume(reason), _nothing, "a resume", CallSite(frame_above(0)))
            self._note(status="compensating", failure=failure)

    @property
    def _progress(self) -> _Progress:
        progress = self._saga._progress
        assert progress is not None
        return progress

    def _note(self, **changes: Any) -> None:
        self._saga._progress = replace(self._progress, **changes)


def _shown(progress: _Progress, data: D) -> SagaState[D]:
    return SagaState(
        step=progress.step,
        step_name=progress.step_name,
        status=progress.status,
        data=data,
        compensated=progress.compensated,
        failure=progress.failure,
        invocation_id=progress.invocation_id,
    )


def _is_interrupted(error: BaseException) -> bool:
    """Whether a step was broken off, so that its outcome is unknown: also where it raised an error of its own then."""
    return terminal(error) is None or any(isinstance(one, _INTERRUPTED) or _is_timeout(one) for one in _behind(error))


def _is_timeout(error: BaseException) -> bool:
    """What it called ran into a time limit of its own, which travels as a plain error of this code (rule E3)."""
    return isinstance(error, TerminalError) and error.code == TIMEOUT_CODE


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error, those in it if it is a group, and those during which it was raised, but for `raise ... from None`."""
    seen: set[int] = set()
    left: list[BaseException] = [error]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            left += cast("BaseExceptionGroup[BaseException]", one).exceptions
        before = one.__cause__ if one.__suppress_context__ else one.__context__
        if before is not None:
            left.append(before)


def _in_words(error: BaseException) -> str:
    told = terminal(error)
    return f"{type(error).__name__}: {error}" if told is None else f"{type(told).__name__}: {told.message}"


def _awaitable(function: Callable[[WorkflowContext, D], Awaitable[R]], ctx: WorkflowContext, data: D) -> Awaitable[R]:
    """What a method of a saga gives; also where no type checker has looked.

    Raises:
        HandlerMistakeError: it cannot be awaited.
    """
    given: Any = function(ctx, data)
    if not inspect.isawaitable(given):
        raise HandlerMistakeError(
            f"{_shown_name(function)} is a step or a compensation of a saga and returned {shortened(given)}, which "
            "cannot be awaited. Make it `async def`."
        )
    return given


async def _error_of(awaitable: Awaitable[object]) -> TerminalError | None:
    try:
        await awaitable
    except TerminalError as error:
        return error
    return None


async def _awaited(begun: DurablePromise[Any]) -> object:
    return await begun


def _identified(answer: bytes) -> str:
    return msgspec.json.decode(answer, type=SendAnswer).id


def _nothing(_answer: bytes) -> None:
    return None


# ---------------------------------------------------------------------- definitions


def _name_of(function: object) -> str:
    name = getattr(function, "__name__", "<lambda>")
    if not callable(function) or name == "<lambda>":
        raise DefinitionError(f"A step of a saga is a method, or a function with a name, not {function!r}. Give name=.")
    return str(name)


def _check(cls: type[Saga[Any]]) -> None:
    """See that a class says its steps, and that what they return fits.

    Raises:
        DefinitionError: says what to write.
    """
    where = named(cls)
    try:
        definition = cls.define(object.__new__(cls), SagaBuilder[Any]())
    except DefinitionError as error:
        raise DefinitionError(f"{where}.define: {error}") from error
    except NotImplementedError:
        raise DefinitionError(
            f"{where} is a saga without steps. Write `def define(self, saga: SagaBuilder[...]) -> SagaDefinition[...]: "
            "return saga.step(self.first).build()`."
        ) from None
    except AttributeError as error:
        raise DefinitionError(
            f"{where}.define used what only the constructor or a handler provides: {error}. It names methods, and "
            "calls nothing."
        ) from error
    if not isinstance(cast("Any", definition), SagaDefinition):
        raise DefinitionError(f"{where}.define returned {definition!r}. Return `saga.step(...).build()`.")
    for step in definition.steps:
        _check_types(where, step, definition_of(cls).scope)


def _shown_name(function: object) -> str:
    return str(getattr(function, "__name__", function))


def _check_types(where: str, step: _Step[Any], scope: Scope) -> None:
    if step.use is None:
        return
    returned, taken = _returned_by(step, scope), _taken_by(step, scope)
    if taken in (float, complex):  # An int passes for one.
        return
    if isinstance(returned, type) and isinstance(taken, type) and not issubclass(returned, taken):
        raise DefinitionError(
            f"{where}: the step {step.name!r} returns {describe(returned)}, and {_shown_name(step.use)}, its "
            f"on_reply(), takes {describe(taken)}."
        )


def _returned_by(step: _Step[Any], scope: Scope) -> Any:
    return _annotation(step.invoke, "return", scope)


def _taken_by(step: _Step[Any], scope: Scope) -> Any:
    use = step.use
    assert use is not None
    parameters = list(inspect.signature(use).parameters)
    return _annotation(use, parameters[2], scope) if len(parameters) > 2 else MISSING


def _annotation(function: Any, name: str, scope: Scope) -> Any:
    """What an annotation means, as far as that is known here; `MISSING` if it says nothing about a class."""
    written = inspect.get_annotations(getattr(function, "__func__", function))
    if name not in written:
        return MISSING
    try:
        found = scope.resolve({name: written[name]}, _shown_name(function))[name]
    except DefinitionError:  # The class does not exist yet.
        return MISSING
    return MISSING if found is Any or any(isinstance(one, TypeVar) for one in _parts(found)) else found


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for one in getattr(annotation, "__args__", ()):
        yield from _parts(one)


def _check_reply(cls: type[Saga[Any]], step: _Step[Any], reply: Any) -> None:
    """See that a reply is what `on_reply` takes, also where no type checker has looked.

    Raises:
        HandlerMistakeError: it is not; the saga pauses, and goes on with other code.
    """
    taken = _taken_by(step, definition_of(cls).scope)
    if taken is MISSING:
        return
    codec = _codec_of(taken)
    if codec is None:
        fits = not isinstance(taken, type) or isinstance(reply, taken)
    else:
        try:
            codec.encode_exactly(reply)
            fits = True
        except UnencodableError:
            fits = False
    if not fits:
        raise HandlerMistakeError(
            f"The step {step.name!r} of {named(cls)} returned {shortened(reply)}, and its on_reply() takes "
            f"{describe(taken)}."
        )


def _codec_of(annotation: Any) -> TypeCodec[Any] | None:
    try:
        return codec_for(annotation)
    except DefinitionError:  # It is no value that is kept or sent.
        return None
