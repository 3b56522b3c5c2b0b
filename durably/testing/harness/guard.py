"""`ClockGuard`: handlers that read a clock, take randomness or look at their process are told so, in a sentence.

What a handler reads there is something else on replay, and the difference may show only much later. That goes for
clocks and dice, for the hash of text, and for what belongs to a process or its machine: ids, the environment, files,
connections. The guard sees the
call whichever way the function was imported. It does not see what one function written in C does inside another, such
as a `default_factory` of pydantic, and it stands aside while somebody else profiles (`sys.setprofile`; cProfile before
Python 3.12). Actions of `ctx.run` may read what they like: they are not replayed.
"""

from __future__ import annotations

import builtins
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import date, time
from dis import get_instructions
from functools import cache
from os import sep
from sysconfig import get_path
from types import FrameType, TracebackType
from typing import Any

from durably.actors.protocol.operations import CallSite, frame_above
from durably.errors import UnrepeatableCallError, find_mistake

OBSERVERS = (
    "_pytest",
    "hypothesis",
    "importlib",
    "linecache",
    "logging",
    "loguru",
    "opentelemetry",
    "prometheus_client",
    "sentry_sdk",
    "structlog",
    "traceback",
    "warnings",
    "zoneinfo",
)
"""Modules that note the time for people, not for the handler: they may, and all that they call may."""

_MACHINERY = ("asyncio", "copy", "durably")
"""They may themselves, but not the handler's code that they call. (`copy` makes a generator that it then sets.)"""

_WRAPPERS = frozenset(
    (
        "_collections_abc",
        "_pydatetime",
        "collections.abc",
        "datetime",
        "genericpath",
        "getpass",
        "glob",
        "os",
        "pathlib",
        "pathlib._abc",
        "pathlib._local",
        "posixpath",
        "random",
        "secrets",
        "shutil",
        "socket",
        "subprocess",
        "threading",
        "uuid",
    )
)
"""Modules of the standard library whose functions are named in the sentence, not those that they call."""

_LIBRARIES = tuple(f"{get_path(name)}{sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
"""Where code lies that is not the user's own."""

_ALWAYS = {
    "time": frozenset(
        (
            "clock_gettime",
            "clock_gettime_ns",
            "monotonic",
            "monotonic_ns",
            "perf_counter",
            "perf_counter_ns",
            "process_time",
            "process_time_ns",
            "sleep",
            "thread_time",
            "thread_time_ns",
            "time",
            "time_ns",
        )
    ),
    "posix": frozenset(("getrandom", "urandom")),
    "nt": frozenset(("urandom",)),
    "_uuid": frozenset(("UuidCreate", "generate_time_safe")),
}
"""Functions in C, by the name of their module."""

_OF_THE_SYSTEM = frozenset(
    (
        "access",
        "cpu_count",
        "get_terminal_size",
        "getcwd",
        "getcwdb",
        "getegid",
        "geteuid",
        "getgid",
        "getloadavg",
        "getlogin",
        "getpid",
        "getppid",
        "getuid",
        "listdir",
        "lstat",
        "open",
        "readlink",
        "scandir",
        "sched_getaffinity",
        "stat",
        "statvfs",
        "times",
        "uname",
    )
)
"""Of the module `os`."""

_OF_THE_PROCESS = {
    "_io": frozenset(("open",)),
    "_thread": frozenset(("get_ident", "get_native_id")),
    "io": frozenset(("open",)),
    "_socket": frozenset(
        ("getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "gethostname", "getnameinfo")
    ),
    "nt": _OF_THE_SYSTEM,
    "posix": _OF_THE_SYSTEM,
    "pwd": frozenset(("getpwall", "getpwnam", "getpwuid")),
}
"""Functions in C that look at the process or its machine. Libraries may: what they read there is mostly their own."""

_PYTHON_OF_THE_PROCESS: dict[int, str] = {
    id(function.__code__): title
    for function, title in (
        (type(os.environ).__getitem__, "os.environ"),
        (type(os.environ).__iter__, "os.environ"),
        (socket.socket.__init__, "socket.socket"),
        (subprocess.Popen.__init__, "subprocess.Popen"),
    )
}
"""The same in Python, by the id of their code."""

_NOW_WITH_ARGUMENTS = {"asctime": 0, "ctime": 0, "gmtime": 0, "localtime": 0, "strftime": 1}
"""Functions of `time` that read the clock if they are given so many arguments; with one more they calculate."""

_NOW_OF_DATES = frozenset(("now", "today", "utcnow"))
_SEED = "seed"
_RANDOM_METHODS = frozenset(("getrandbits", "random"))
_SHARED_RANDOM: Any = random.random.__self__  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
"""The generator behind `random.random()`, `random.choice()` and so on; they all draw from it by `_RANDOM_METHODS`."""

_PUBLIC_NAMES = {"open": "open", "get_ident": "threading.get_ident", "get_native_id": "threading.get_native_id"}
_OFFERED_BY = {"_socket": "socket", "pwd": "pwd"}
_TITLES_OF_PROCESS = frozenset(("hash", "open", "os", "pwd", "socket", "subprocess", "threading"))
_PUBLIC_MODULES = {
    "genericpath": "os.path",
    "posixpath": "os.path",
    "pathlib._abc": "pathlib",
    "pathlib._local": "pathlib",
}
_SPEAKS_FOR_ITSELF = frozenset(("getpass",))
"""Wrappers: an error names them, not the function that they read with."""
_HASH = hash

_NAMES = frozenset(_NOW_WITH_ARGUMENTS).union(
    _NOW_OF_DATES, [_SEED], _RANDOM_METHODS, *_ALWAYS.values(), *_OF_THE_PROCESS.values()
)

_WHAT_TO_USE = {
    "datetime": "ctx.now(), which is recorded",
    "random": "ctx.random(), which gives the same numbers on replay",
    "time": "ctx.now(), which is recorded",
    "uuid": "ctx.uuid(), which gives the same one on replay",
}
_FOR_PROCESSES = {
    "hash": "The hash of text differs from process to process. Use the text itself, or hashlib.",
    "subprocess": "A replay would start it again. Start it in a function: `await ctx.run(name, function, ...)`.",
    "socket": "A replay would connect again. Connect in a function, and write `await ctx.run(name, function, ...)`.",
}
_LOOKS_AT_NAMES = frozenset(("socket.getfqdn", "socket.gethostname"))
_READERS = frozenset(("getpass", "glob", "open", "os", "pathlib", "pwd", "shutil", "socket", "threading"))
_READ_IN_A_RUN = (
    "A replay in another process would find something else. Read it when the program starts and give it to the actor "
    "as a dependency, or read it in a function and write `await ctx.run(name, function, ...)`."
)
_FOR_SECRETS = (
    "ctx.random(), which gives the same numbers on replay, or for a secret "
    '`await ctx.run("secret", secrets.token_hex)`, which is recorded'
)


class ClockGuard:
    """Watches handlers while their code runs. Satisfies `durably.runtime.settings.Watch`.

    `allow` names further modules (with all that is in them) that may read clocks, and so may the code they call: for
    libraries of yours that measure, and whose measurements no handler sees.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        if isinstance(allow, str):
            raise TypeError(f"`allow` takes the names of modules: allow=[{allow!r}], with the brackets.")
        self._allowed = (*OBSERVERS, *allow)

    def __call__(self, handler: str, /) -> AbstractContextManager[object, None]:
        """To be entered around a run of the code of this handler, on its thread.

        Raises:
            UnrepeatableCallError: at the call itself; and at the end, if the handler has caught that.
        """
        return _Watching(handler, self._allowed)


class _Watching:
    """One run of a handler's code."""

    __slots__ = ("_allowed", "_bottom", "_found", "_handler", "_profile")

    def __init__(self, handler: str, allowed: tuple[str, ...]) -> None:
        self._handler = handler
        self._allowed = allowed
        self._profile: Any = None
        self._bottom: FrameType | None = None
        """What is called below is the handler's."""
        self._found: UnrepeatableCallError | None = None

    def __enter__(self) -> None:
        if sys.getprofile() is None:
            builtins.hash = self._hash
            self._bottom = frame_above(1)
            self._profile = self._note
            sys.setprofile(self._profile)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._profile is not None:
            builtins.hash = _HASH
        if sys.getprofile() is self._profile:  # Python takes it away when it raises.
            sys.setprofile(None)
        found, self._found, self._bottom, self._profile = self._found, None, None, None
        if found is None or isinstance(error, KeyboardInterrupt | MemoryError):  # Rule E3
            return
        if error is None or find_mistake(error) is None:
            raise found

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        # Called for all that a handler does, so what is most often false is asked first.
        if event == "c_call":
            if argument.__name__ in _NAMES and not _is_machinery(frame.f_globals.get("__name__", "")):
                title = _title(argument, frame)
                if title is not None:
                    self._refuse(title, frame)
        elif event == "call" and id(frame.f_code) in _PYTHON_OF_THE_PROCESS and frame.f_back is not None:
            self._refuse(_PYTHON_OF_THE_PROCESS[id(frame.f_code)], frame.f_back)

    def _hash(self, value: object, /) -> int:
        """Stands for `hash` while handlers run. A value that is only kept in a dict may hash as it likes."""
        frame = frame_above(1)
        is_of_handler = sys.getprofile() is not None and frame.f_code.co_name != "__hash__"
        if is_of_handler and not _is_in_a_library(frame) and _hashes_by_process(value):
            self._refuse("hash", frame)
        return _HASH(value)

    def _refuse(self, title: str, frame: FrameType) -> None:
        caller: FrameType | None = frame
        is_of_process = title.partition(".")[0] in _TITLES_OF_PROCESS and title not in ("os.urandom", "os.getrandom")
        while caller is not None and _module(caller) in _WRAPPERS:
            module = _module(caller)
            if title not in _PYTHON_OF_THE_PROCESS.values() or module in _SPEAKS_FOR_ITSELF:
                title = f"{_PUBLIC_MODULES.get(module, module)}.{_public_name(caller)}"
            caller = caller.f_back
        if caller is not None and is_of_process and _is_in_a_library(caller):
            return
        if caller is None or _is_machinery(_module(caller)) or self._is_allowed(caller):
            return
        error = UnrepeatableCallError(f"{self._handler} {self._sentences(title, caller)}")
        if self._found is None:
            self._found = error
        raise error

    def _is_allowed(self, caller: FrameType) -> bool:
        # The garbage collector runs a `__del__` whenever it likes, also while a handler happens to run.
        return any(
            frame.f_code.co_name == "__del__" or _is_in(_module(frame), self._allowed) for frame in self._frames(caller)
        )

    def _sentences(self, title: str, caller: FrameType) -> str:
        user = next((frame for frame in self._frames(caller) if not _is_in_a_library(frame)), caller)
        if user is caller:
            return f"called {title}() at {CallSite(caller)}. {_what_to_do(title)}"
        return (
            f"called a library at {CallSite(user)}, and that called {title}() at {CallSite(caller)}. On replay it "
            "would give something else. Move what needs it into a function and write "
            '`await ctx.run("name", function, ...)`.'
        )

    def _frames(self, caller: FrameType) -> Iterator[FrameType]:
        """From the call outwards, as far as it is the handler's."""
        frame: FrameType | None = caller
        while frame is not None and frame is not self._bottom:
            yield frame
            frame = frame.f_back


def _title(function: Any, frame: FrameType) -> str | None:
    """What this function in C is called, if it reads a clock or gives random numbers; `frame` calls it."""
    name, module, owner = function.__name__, function.__module__, function.__self__
    if name in _ALWAYS.get(module, ()):
        return f"{'os' if name in ('urandom', 'getrandom') else module}.{name}"
    if name in _OF_THE_PROCESS.get(module, ()):
        return _PUBLIC_NAMES.get(name, f"{_OFFERED_BY.get(module, 'os')}.{name}")
    if module == "time" and name in _NOW_WITH_ARGUMENTS:
        return f"time.{name}" if _given_arguments(frame) == _NOW_WITH_ARGUMENTS[name] else None
    if name in _NOW_OF_DATES:
        return f"datetime.{owner.__name__}.{name}" if isinstance(owner, type) and issubclass(owner, date) else None
    if name in _RANDOM_METHODS:
        return f"random.{name}" if owner is _SHARED_RANDOM else None
    if name == _SEED and isinstance(owner, random.Random) and frame.f_locals.get("a", owner) is None:
        return "random.Random"
    return None


def _public_name(frame: FrameType) -> str:
    """A function as its module offers it: `Random` for its `__init__`, `choice` for `Random.choice`."""
    return frame.f_code.co_qualname.removesuffix(".__init__").rpartition(".")[2]


def _given_arguments(frame: FrameType) -> int | None:
    """How many arguments the call that this frame is making was written with; None if that cannot be seen."""
    calls = (step for step in get_instructions(frame.f_code) if step.offset == frame.f_lasti and step.opname == "CALL")
    return next((step.arg for step in calls), None)


def _what_to_do(title: str) -> str:
    if title == "time.sleep":
        return (
            "It stops every other actor of the process too, and would do so again on replay. "
            "Use `await ctx.sleep(...)` or `await asyncio.sleep(...)`, which are durable."
        )
    kind = title.partition(".")[0]
    if kind in _FOR_PROCESSES and title not in _LOOKS_AT_NAMES:
        return _FOR_PROCESSES[kind]
    if kind in _READERS and title not in ("os.urandom", "os.getrandom"):
        return _READ_IN_A_RUN
    use = _WHAT_TO_USE.get(title.partition(".")[0], _FOR_SECRETS)
    return f"On replay it would give something else. Use {use}."


def _hashes_by_process(value: object) -> bool:
    """Its hash depends on the process: text, bytes, dates, and what holds them."""
    if isinstance(value, tuple | frozenset):
        return any(map(_hashes_by_process, value))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(value, str | bytes | date | time)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


@cache
def _is_machinery(module: str) -> bool:
    """Asked for each step of each handler, whose loop asks in which thread it is."""
    return _is_in(module, _MACHINERY)


def _is_in_a_library(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_LIBRARIES)


def _is_in(module: str, names: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in names)
