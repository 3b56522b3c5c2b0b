"""`DeterministicLoop`: the event loop that one attempt of one handler runs on. Nothing but a ready queue.

It does no I/O, has no clock and never waits: the host enters it, delivers a completion, lets it run until nothing is
ready, and leaves. Given the same deliveries it runs the same callbacks in the same order, because its tasks and futures
hash by creation number, so that the sets of asyncio iterate the same way on replay, in any process. Timers are commands
of the execution that owns the loop; calls that would do real I/O raise (rules D1 to D6).
"""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio import events
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from threading import get_ident
from types import CodeType, FrameType
from typing import Any, NoReturn, Protocol, TypeAlias, TypeGuard, TypeVar, TypeVarTuple
from weakref import ref

import msgspec

from durably.actors.protocol.operations import Operation, frame_above
from durably.actors.values.durations import LONGEST_SECONDS
from durably.errors import AdvanceLimitError, BlockingIOInHandlerError, HandlerMistakeError, WrongContextError
from durably.runtime.execution.closing import CLOSINGS, close_asyncgen, close_coroutine

T = TypeVar("T")
Args = TypeVarTuple("Args")

US_PER_SECOND = 1_000_000
_TASKS_NEVER_TIDIED = 1024
_TASKS_TIDIED_PER_STEP = 64
_SHIELDED_NEVER_TIDIED = 64
_CALLBACKS_PER_TASK = 8
"""What each task adds to the limit of an advance, once: enough to be cancelled and to clean up."""


class TimerOwner(Protocol):
    """What the loop needs of its execution: time passes by command only, and what goes wrong in a callback is told."""

    def start_timer(self, timer: DurableTimer, due: int, /) -> None: ...
    def drop_timer(self, timer: DurableTimer, /) -> None: ...
    def callback_failed(self, context: dict[str, Any], /) -> None: ...


class ReadyCallback(msgspec.Struct):
    """A callback in the ready queue, for an `asyncio.Handle`, whose bookkeeping costs more than the rest of a step."""

    call: tuple[Any, ...]
    """What is called, and its arguments."""
    context: Context
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class DurableTimer(asyncio.TimerHandle):
    """A timer that is a `Sleep` command: it outlives the process."""

    command: int = -1

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: DeterministicLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.due_loop = loop
        self.ready = ReadyCallback((callback, *args), copy_context() if context is None else context)


def _refused(name: str) -> Any:
    """A method that raises a sentence. Any: each of them stands for one of another signature."""

    def refuse(self: IsolatedLoop, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse(name)

    refuse.__name__ = name
    return refuse


class IsolatedLoop(asyncio.AbstractEventLoop):
    """A loop that does no I/O, and whose runs can be repeated.

    Its tasks and futures hash by creation number, so that sets of them iterate alike in every process.
    """

    __slots__ = ()
    _next_number: int

    def number(self) -> int:
        """The next creation number; what is numbered hashes by it."""
        number = self._next_number
        self._next_number = number + 1
        return number

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(self.number(), loop=self)

    def refuse(self, name: str) -> NoReturn:
        """Raise a sentence: this method of a loop reaches outside."""
        raise NotImplementedError

    call_soon_threadsafe = _refused("call_soon_threadsafe")
    run_in_executor = _refused("run_in_executor")
    set_default_executor = _refused("set_default_executor")
    getaddrinfo = _refused("getaddrinfo")
    getnameinfo = _refused("getnameinfo")
    create_connection = _refused("create_connection")
    create_server = _refused("create_server")
    create_unix_connection = _refused("create_unix_connection")
    create_unix_server = _refused("create_unix_server")
    create_datagram_endpoint = _refused("create_datagram_endpoint")
    connect_accepted_socket = _refused("connect_accepted_socket")
    connect_read_pipe = _refused("connect_read_pipe")
    connect_write_pipe = _refused("connect_write_pipe")
    subprocess_shell = _refused("subprocess_shell")
    subprocess_exec = _refused("subprocess_exec")
    start_tls = _refused("start_tls")
    sendfile = _refused("sendfile")
    add_reader = _refused("add_reader")
    remove_reader = _refused("remove_reader")
    add_writer = _refused("add_writer")
    remove_writer = _refused("remove_writer")
    sock_recv = _refused("sock_recv")
    sock_recv_into = _refused("sock_recv_into")
    sock_recvfrom = _refused("sock_recvfrom")
    sock_recvfrom_into = _refused("sock_recvfrom_into")
    sock_sendall = _refused("sock_sendall")
    sock_sendto = _refused("sock_sendto")
    sock_connect = _refused("sock_connect")
    sock_accept = _refused("sock_accept")
    sock_sendfile = _refused("sock_sendfile")
    add_signal_handler = _refused("add_signal_handler")
    remove_signal_handler = _refused("remove_signal_handler")
    set_task_factory = _refused("set_task_factory")
    set_exception_handler = _refused("set_exception_handler")
    run_forever = _refused("run_forever")
    run_until_complete = _refused("run_until_complete")
    stop = _refused("stop")
    close = _refused("close")
    shutdown_asyncgens = _refused("shutdown_asyncgens")
    shutdown_default_executor = _refused("shutdown_default_executor")


class NumberedFuture(asyncio.Future[T]):
    """A future that hashes by its number."""

    __slots__ = ("number",)

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class MainTask(asyncio.Task[T]):
    """The task of the handler itself; hashes by the loop's salt, since it is the first thing made."""

    __slots__ = ()

    def __hash__(self) -> int:
        loop = self.get_loop()
        assert isinstance(loop, DeterministicLoop)
        return loop.salt


class NumberedTask(asyncio.Task[T]):
    """A task that hashes by its number."""

    __slots__ = ("number",)

    def __init__(
        self,
        number: int,
        coroutine: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: asyncio.AbstractEventLoop,
        name: str,
        context: Context | None,
    ) -> None:
        self.number = number  # before the rest: asyncio puts the task into a set while it is being made
        super().__init__(coroutine, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


def timer_us(seconds: float) -> int | None:
    """A delay or moment that asyncio was given, in whole microseconds; None for an infinite one, which never comes."""
    if seconds == math.inf:
        return None
    return round(max(seconds, -LONGEST_SECONDS) * US_PER_SECOND)


def _called_from_as_completed(frame: FrameType | None) -> bool:
    """A task is being made by `asyncio.as_completed`, which makes them in the order of a set of coroutines."""
    for _ in range(4):
        if frame is None or not _is_asyncio_tasks(frame.f_code):
            return False
        if "as_completed" in frame.f_code.co_qualname or "AsCompleted" in frame.f_code.co_qualname:
            return True
        frame = frame.f_back
    return False


def never_report(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from complaining that a task was destroyed while it waits: for that it has no public way."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def is_task(future: object) -> TypeGuard[asyncio.Task[Any]]:
    """It is a task, of a handler or of the host."""
    return isinstance(future, asyncio.Task)


def _is_future(future: object) -> TypeGuard[asyncio.Future[Any]]:
    return isinstance(future, asyncio.Future)


def has_unheard_error(task: asyncio.Task[Any]) -> bool:
    """The task failed, and no code has asked for its error. Asyncio keeps that in a private attribute."""
    return bool(getattr(task, "_log_traceback", False))


def _is_asyncio_tasks(code: CodeType) -> bool:
    return code.co_filename == _ASYNCIO_TASKS_FILE


def _add_awaited(future: object, found: list[asyncio.Future[Any]]) -> None:
    """A future, and what it waits for: what its task stands at, what it gathers. Asyncio has no public way to tell."""
    if not _is_future(future) or future.done() or future in found:
        return
    found.append(future)
    for child in getattr(future, "_children", ()):
        _add_awaited(child, found)
    _add_awaited(getattr(future, "_fut_waiter", None), found)


_ASYNCIO_TASKS_FILE = asyncio.as_completed.__code__.co_filename
_SHIELD: CodeType = asyncio.shield.__code__


class DeterministicLoop(IsolatedLoop):
    """The loop of one attempt. The host calls what stands first; everything else is for asyncio and handlers."""

    __slots__ = (
        "_asyncgens", "_failures", "_heard", "_limit", "_next_number", "_owner", "_ready", "_shielded",
        "_steps_untidied", "_tidied_beyond", "at", "dead", "main", "salt", "tasks", "thread",
    )  # fmt: skip

    def __init__(self, owner: TimerOwner, salt: int, advance_limit_callbacks: int) -> None:
        """`salt` spreads the hashes of different executions; it must be the same on replay."""
        self._owner: TimerOwner | None = owner
        self._limit = advance_limit_callbacks
        self._next_number = salt + 1
        self._ready: list[ReadyCallback] = []
        self.salt = salt
        self.main: asyncio.Task[Any] | None = None
        self.dead = False
        """The attempt is over: everything that is still done on this loop is ignored."""
        self.thread = 0
        """The thread that is in this loop right now; 0 for none."""
        self.at = 0
        """The time of the step, microseconds since 1970 UTC."""
        self.tasks: list[NumberedTask[Any]] | None = None
        """Those besides the main one, but for what has been forgotten; None: there has never been one."""
        self._steps_untidied = 0
        self._tidied_beyond = _TASKS_NEVER_TIDIED
        self._failures: Sequence[ref[NumberedTask[Any]]] = ()
        """Tasks that failed and are not among the others any more."""
        self._heard: set[int] | None = None
        """When the main task was done first: the ids of tasks of whose end somebody was about to hear."""
        self._asyncgens: list[AsyncGenerator[Any, Any]] | None = None
        self._shielded: list[asyncio.Future[Any]] | None = None
        """What `asyncio.shield` was given."""

    @property
    def handler_port(self) -> object:
        """The port of the handler that runs on it, for values that find it by the loop (`Awakeable`)."""
        return self._owner

    # ------------------------------------------------------------------ for the host

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Make the main task. Rule D4: its context is fresh and inherits nothing from the caller."""
        self.main = MainTask(coroutine, loop=self, name="main", context=Context())
        return self.main

    def run_ready(self, main: asyncio.Future[Any]) -> bool:
        """Run callbacks until none is ready, or `main` is done: then the step is over, later ones do not run (rule S6).

        Only between `enter` and `leave`. Returns whether `main` is done.
        """
        is_over = False
        left = limit = self._limit
        tasks_before = 0 if self.tasks is None else len(self.tasks)
        callback: ReadyCallback | None = None
        for callback in self._ready:  # It grows meanwhile.
            if callback.is_cancelled:
                continue
            try:
                callback.context.run(*callback.call)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._failed({"message": f"a callback of a handler raised: {callback.call[0]!r}", "exception": error})
            if main.done():
                is_over = True
                if self.tasks is not None:
                    self._note_heard(callback)
                break
            left -= 1
            if left == 0 and limit == self._limit:  # Rule S7: cancelling many tasks is no endless loop.
                left = _CALLBACKS_PER_TASK * max(tasks_before, 0 if self.tasks is None else len(self.tasks))
                limit += left
            if left == 0:
                raise AdvanceLimitError(
                    f"The handler ran {limit} callbacks in one go without waiting for anything. Most likely a "
                    "loop awaits something that is always ready, such as `asyncio.sleep(0)`; wait for an event, or "
                    "`ctx.sleep`."
                )
        self._ready.clear()
        # The error of a failed task leads to this frame. If this led to the task, no report would come before the
        # next garbage collection; asyncio lets go of its handles for the same reason.
        callback = None
        return is_over

    def fire(self, timer: DurableTimer) -> None:
        """The due time of a timer has come."""
        if not timer.cancelled():
            self._ready.append(timer.ready)

    def live_tasks(self) -> list[asyncio.Task[Any]]:
        """Tasks that are not done, oldest first."""
        main, tasks = self.main, self.tasks or ()
        return [task for task in (main, *tasks) if task is not None and not task.done()]

    def shielded(self) -> list[asyncio.Future[Any]]:
        """What was shielded from cancels and has not ended, with all that it waits for itself."""
        found: list[asyncio.Future[Any]] = []
        for future in self._shielded or ():
            _add_awaited(future, found)
        return found

    def _note_shielded(self, inner: asyncio.Future[Any]) -> None:
        known = self._shielded or []
        if len(known) >= _SHIELDED_NEVER_TIDIED:
            known = [future for future in known if not future.done()]
        self._shielded = [*known, inner]

    def tidy(self) -> None:
        """At the end of a step: forget tasks that are done. Asyncio reports those whose error nothing can ask for.

        Few of them per step on average, and as many on replay, so a report comes in the same step each time.
        """
        if self.tasks is None:
            return
        self._steps_untidied += 1
        if len(self.tasks) <= _TASKS_TIDIED_PER_STEP * self._steps_untidied:
            self._steps_untidied = 0
            self._forget_done()

    def _forget_done(self) -> None:
        tasks = self.tasks or ()
        # Weakly: asyncio reports an error when the last reference goes.
        failures = [ref(task) for task in tasks if task.done() and has_unheard_error(task)]
        if failures:
            self._failures = [*self._failures, *failures]
        self.tasks = [task for task in tasks if not task.done()]
        self._tidied_beyond = max(2 * len(self.tasks), _TASKS_NEVER_TIDIED)

    def take_lost_errors(self) -> list[tuple[asyncio.Task[Any], BaseException]]:
        """After the main task: the tasks that failed, unless somebody has asked for the error or was about to hear."""
        heard = self._heard or ()
        lost: list[tuple[asyncio.Task[Any], BaseException]] = []
        failed = [task for known in self._failures if (task := known()) is not None]
        for task in (*failed, *(self.tasks or ())):
            if not task.done() or task.cancelled() or not has_unheard_error(task) or id(task) in heard:
                continue
            error = task.exception()  # From here on asyncio will not report it.
            if error is not None:
                lost.append((task, error))
        return lost

    def _note_heard(self, last: ReadyCallback) -> None:
        """The callbacks behind `last` will not run any more; some were to tell somebody of the end of a task."""
        position = next(index for index, callback in enumerate(self._ready) if callback is last)
        self._heard = {id(callback.call[1]) for callback in self._ready[position + 1 :] if len(callback.call) > 1}

    def kill(self) -> None:
        """End the attempt: close what still runs, newest first, and ignore what it then does (rule D3).

        Otherwise the garbage collector would run the `finally` blocks of a thrown-away handler inside another
        invocation.
        """
        if self.dead:
            return
        self.dead = True
        self._ready.clear()
        if self.tasks is not None or self._asyncgens is not None or (self.main is not None and not self.main.done()):
            self._close_everything()
        # What a loop, its execution and its tasks know of each other would keep them until the garbage collector comes.
        self.main = self.tasks = self._asyncgens = self._shielded = self._owner = None

    def _close_everything(self) -> None:
        tasks = self.live_tasks()
        main = self.main
        assert main is not None
        host, before = events._get_running_loop(), enter(self)
        try:
            for task in reversed(tasks):
                never_report(task)
                self._within(task, close_coroutine, task.get_coro())
            for _ in range(CLOSINGS):  # A `finally` may begin others meanwhile.
                if not self._asyncgens:
                    break
                self._within(main, close_asyncgen, self._asyncgens.pop())
        finally:
            leave(self, host, before)
        self._ready.clear()

    def _within(self, task: asyncio.Task[Any], close: Callable[[Any], None], what: Any) -> None:
        """Close something as the task that it belongs to.

        What a `finally` block then awaits asks for the current task. Without one, `asyncio.wait_for` of Python 3.12
        drops the coroutine that it was given, and Python warns that it was never awaited.
        """
        asyncio.tasks._enter_task(self, task)
        try:
            close(what)
        finally:
            asyncio.tasks._leave_task(self, task)

    def check(self, what: object) -> None:
        """Raise unless this loop runs right now, on this thread (rule D1)."""
        if self.thread != get_ident():
            raise WrongContextError(
                f"{what} was used outside the handler it belongs to: in an action of `ctx.run`, in a thread, in "
                "another handler, or after the handler had ended. Use it in the handler itself and hand over plain "
                "values."
            )

    # ------------------------------------------------------------------ for asyncio

    def time(self) -> float:
        return self.at / US_PER_SECOND

    def is_running(self) -> bool:
        return self.thread == get_ident()

    def is_closed(self) -> bool:
        return self.dead

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Debugging of callbacks would make replay slower than live; ignored."""

    def call_soon(self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None) -> Any:
        if self.thread != get_ident():
            self.check("A future, event, lock, queue or task of a handler")
        ready = ReadyCallback((callback, *args), copy_context() if context is None else context)
        if not self.dead:
            self._ready.append(ready)
        return ready

    def call_later(
        self, delay: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        delay_us = timer_us(delay)
        return self._call_at(None if delay_us is None else self.at + delay_us, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._call_at(timer_us(when), callback, args, context)

    def _call_at(
        self, due: int | None, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.TimerHandle:
        self.check("A timer of a handler")
        if due is None:  # It never fires, so it is no command.
            return asyncio.TimerHandle(math.inf, callback, args, self, context)
        if due - self.at > LONGEST_SECONDS * US_PER_SECOND:
            raise OverflowError(
                f"A timer that is due in more than {LONGEST_SECONDS:.0f} seconds (a thousand years) cannot be kept."
            )
        timer = DurableTimer(due / US_PER_SECOND, callback, args, self, context)
        if not self.dead and self._owner is not None:
            self._owner.start_timer(timer, due)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio's hook: called once by `TimerHandle.cancel`."""
        if not self.dead and self._owner is not None and isinstance(handle, DurableTimer):
            self._owner.drop_timer(handle)

    def create_future(self) -> asyncio.Future[Any]:
        caller = frame_above(1)
        if caller.f_code is _SHIELD:
            self._note_shielded(caller.f_locals["inner"])
        return NumberedFuture(self.number(), loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **ignored: Any,
    ) -> asyncio.Task[T]:
        """`eager_start` and what later versions of Python may pass is ignored (rule D5)."""
        if not isinstance(coro, Operation) and _called_from_as_completed(frame_above(1)):
            coro.close()
            raise HandlerMistakeError(
                "`asyncio.as_completed` was given bare coroutines in a handler. It makes their tasks in an order that "
                "differs from run to run. Give it tasks: `asyncio.as_completed([asyncio.create_task(c) for c in ...])`."
            )
        self.check("A task of a handler")
        number = self.number()
        title = f"task-{number - self.salt}" if name is None else str(name)
        task = NumberedTask(number, coro, loop=self, name=title, context=context)
        if self.dead:  # Rule D3: it will never start, and must not be reported as forgotten.
            never_report(task)
            coro.close()
            return task
        if self.tasks is None:
            self.tasks = []
        self.tasks.append(task)
        if len(self.tasks) > self._tidied_beyond:
            self._forget_done()
        return task

    def refuse(self, name: str) -> NoReturn:
        raise BlockingIOInHandlerError(
            f"`loop.{name}` was used in a handler. It reaches outside the handler, so on replay it would happen again, "
            'with another result. Move what needs it into a function and write `await ctx.run("name", function, ...)`.'
        )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._failed(context)

    def _failed(self, context: dict[str, Any]) -> None:
        if not self.dead and self._owner is not None:
            self._owner.callback_failed(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def get_exception_handler(self) -> None:
        return None

    def get_task_factory(self) -> None:
        return None

    def track(self, asyncgen: AsyncGenerator[Any, Any]) -> None:
        """Hold an asynchronous generator until the attempt ends, lest the garbage collector close it."""
        if self._asyncgens is None:
            self._asyncgens = []
        self._asyncgens.append(asyncgen)


_inside: dict[int, DeterministicLoop | None] = {}
"""The deterministic loop that each thread is in; None between two of a round. Asyncio takes a system call to tell."""


def is_in_a_handler() -> bool:
    """This thread is running some handler's loop right now."""
    return _inside.get(get_ident()) is not None


Hooks: TypeAlias = Any
"""For asynchronous generators, as the thread had them before."""


def begin_round() -> Hooks | None:
    """Take this thread's hooks for asynchronous generators until `end_round`, which needs what this returns.

    Many loops can be entered in a round; only from a plain callback of the host's loop, never from within a task.
    """
    thread = get_ident()
    if thread in _inside:
        return None
    hooks = sys.get_asyncgen_hooks()
    _inside[thread] = None
    sys.set_asyncgen_hooks(_first_iteration, _finalizer)
    return hooks


def end_round(hooks: Hooks | None) -> None:
    """Give the hooks back to the host's loop."""
    if hooks is not None:
        del _inside[get_ident()]
        sys.set_asyncgen_hooks(*hooks)


def enter(loop: DeterministicLoop) -> tuple[DeterministicLoop | None, Hooks | None]:
    """Make it the running loop of this thread, in the round that is under way or in one of its own.

    Returns what `leave` needs.
    """
    thread = get_ident()
    hooks = None if thread in _inside else begin_round()
    before = _inside[thread], hooks
    _inside[thread] = loop
    loop.thread = thread
    events._set_running_loop(loop)
    return before


def leave(
    loop: DeterministicLoop,
    host: asyncio.AbstractEventLoop | None,
    before: tuple[DeterministicLoop | None, Hooks | None],
) -> None:
    """Give the thread back to the host's loop."""
    outer, hooks = before
    events._set_running_loop(host)
    _inside[loop.thread] = outer
    loop.thread = 0
    if hooks is not None:
        end_round(hooks)


def _first_iteration(asyncgen: AsyncGenerator[Any, Any]) -> None:
    loop = _inside.get(get_ident())
    if loop is not None:
        loop.track(asyncgen)


def _finalizer(asyncgen: AsyncGenerator[Any, Any]) -> None:
    """Never called while the loop holds the generator; without it Python would call the host's."""


def _number_gathering_futures() -> None:
    """Let the future of `asyncio.gather` hash by number on an isolated loop, as all others do there.

    asyncio makes it itself, not through the loop, so `wait({gather(...), gather(...)})` would iterate differently on
    replay. On every other loop it hashes as before.
    """
    gathering: Any = getattr(asyncio.tasks, "_GatheringFuture", None)
    if gathering is None:  # Another version of Python; tests/properties would tell.
        return

    def hash_by_number(future: Any) -> int:
        loop = future.get_loop()
        if not isinstance(loop, IsolatedLoop):
            return object.__hash__(future)
        number: int | None = future.__dict__.get("_durably_number")
        if number is None:
            number = future.__dict__["_durably_number"] = loop.number()
        return number

    gathering.__hash__ = hash_by_number


_number_gathering_futures()
