"""From `module:attribute` to a `Runtime`, or a codec; every way in which that can fail is a sentence of its own."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import iscoroutine, iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from durably.actors.actor import Actor, StateMachine
from durably.actors.machines.info import MACHINE
from durably.actors.machines.machine import Machine
from durably.actors.machines.project import Project
from durably.actors.values.user_errors import USER_ERRORS, is_from_signal
from durably.cli.examples import EXAMPLES, examples_folder, serve_command
from durably.cli.failures import CommandError, InterruptedCommandError
from durably.codecs import Codec
from durably.errors import DurablyError
from durably.runtime.runtime import Runtime

if TYPE_CHECKING:
    from durably.restate import Deployment


def load_runtime(target: str) -> Runtime:
    """The runtime that `module:attribute` names: the attribute itself, or what it returns when it is called.

    The current folder is searched first, as `python -m` does.

    Raises:
        CommandError: it cannot be had.

    """
    found = _named(target, "a runtime", "app:runtime")
    runtime = found if isinstance(found, Runtime) else _made_by(found, target)
    if not isinstance(runtime, Runtime):
        raise CommandError(
            f"{target} is {_described(runtime)}, not a Runtime. "
            "Name a durably.Runtime, or a function without parameters that returns one."
        )
    return runtime


def load_codec(target: str) -> Codec:
    """The codec that `module:attribute` names: the attribute itself, or what it returns when it is called.

    Raises:
        CommandError: it cannot be had.

    """
    found = _named(target, "a codec", "app:codec", _suggested_codec)
    codec = found if _is_codec(found) else _made_by(found, target)
    if not _is_codec(codec):
        raise CommandError(
            f"{target} is {_described(codec)}, not a codec. Name one of durably.codecs, or an object with encode(data) "
            "and decode(data), or a function without parameters that returns one."
        )
    return codec  # type: ignore[no-any-return]


def load_deployment(target: str) -> Deployment:
    """The deployment of Restate that `module:attribute` names: the attribute itself, what it returns when it is called,
    or one of the classes of actors in it.

    Raises:
        CommandError: it cannot be had.

    """
    from durably.restate import Deployment, app

    found = _named(target, "a deployment of Restate", "app:app")
    if isinstance(found, Deployment):
        return found
    made: object = [found] if isinstance(found, type) else _made_by(found, target)
    if isinstance(made, Deployment):
        return made
    described = _described(made)
    actors: Sequence[object] = cast("Sequence[object]", made) if isinstance(made, list | tuple) else ()
    if not actors or not all(isinstance(one, type) for one in actors):
        raise CommandError(
            f"{target} is {described}, and no deployment of Restate. Name what "
            "durably.restate.app(...) gives, a list of classes of actors, or a function without parameters that "
            "returns one of them."
        )
    try:
        return app(*cast("Sequence[type[Actor]]", actors))
    except DurablyError as error:
        raise CommandError(str(error)) from error


def load_machine(target: str) -> type[Machine[Any]]:
    """The class of transitions that `module:attribute` names.

    Raises:
        CommandError: it cannot be had.

    """
    found = _named(target, "a machine", "app:Orders", _suggested_machine)
    if not _is_machine(found):
        raise CommandError(
            f"{target} is {_described(found)}, not a machine. Name a class of transitions, "
            "such as class Orders(Machine[Order])."
        )
    return cast("type[Machine[Any]]", found)


def load_program(target: str) -> Project | Runtime:
    """The project or runtime that `module:attribute` names: the attribute itself, or what it returns when it is called.

    Raises:
        CommandError: it cannot be had.

    """
    found = _named(target, "a project or a runtime", "project:project", _suggested_program)
    program = found if isinstance(found, Project | Runtime) else _made_by(found, target)
    if not isinstance(program, Project | Runtime):
        raise CommandError(
            f"{target} is {_described(program)}, neither a Project nor a Runtime. Name a durably.models.Project, as in "
            "project = Project([Orders], main=main), or a durably.Runtime."
        )
    return program


def _suggested_program(module: ModuleType) -> str:
    programs = [name for name, value in vars(module).items() if isinstance(value, Project | Runtime)]
    return f" It has {module.__name__}:{programs[0]}" if programs else " It has no Project, and no Runtime."


def _is_machine(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, StateMachine) and hasattr(found, MACHINE)


def _suggested_machine(module: ModuleType) -> str:
    machines = [name for name, value in vars(module).items() if _is_machine(value)]
    return f" It has this machine: {module.__name__}:{machines[0]}" if machines else " It has no machine at all."


def _suggested_codec(module: ModuleType) -> str:
    codecs = [name for name, value in vars(module).items() if not name.startswith("_") and _is_codec(value)]
    return f" It has this codec: {module.__name__}:{codecs[0]}" if codecs else " It has no codec at all."


def _is_codec(found: Any) -> bool:
    has_both = all(callable(getattr(found, method, None)) for method in ("encode", "decode"))
    return has_both and not isinstance(found, type | str | bytes)


def _named(target: str, what: str, example: str, suggestion: Callable[[ModuleType], str] | None = None) -> Any:
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise CommandError(f"'{target}' does not name {what}. Write module:attribute, as in {example}.")
    return _attribute(_import(module_name, target), attribute, suggestion or _suggestion)


def _import(name: str, target: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            if (Path.cwd() / name).is_file():
                raise CommandError(f"'{name}' is a file. Write the module: {Path(name).stem}.") from error
            raise CommandError(
                f"There is no module named '{error.name}', neither in {folder} nor where packages are installed."
                f"{_way_to_the_examples(name, target)}"
            ) from error
        raise _user_code_failed(f"Importing {name}", error) from error
    except SyntaxError as error:
        where = f" in {error.filename}, line {error.lineno}" if error.filename else ""
        raise CommandError(f"Importing {name} failed{where}: {type(error).__name__}: {error.msg}") from error
    except USER_ERRORS as error:
        raise _user_code_failed(f"Importing {name}", error) from error


def _way_to_the_examples(name: str, target: str) -> str:
    """What to do outside a checkout, where durably's examples are not in the current folder."""
    package, _, module = name.partition(".")
    if package != EXAMPLES or not (examples_folder() / EXAMPLES / f"{module}.py").is_file():
        return " Go to the folder that holds it, or put that folder into PYTHONPATH."
    return f" durably's examples came with it, in another folder. This serves one from here:\n{serve_command(target)}"


def _attribute(module: ModuleType, path: str, suggestion: Callable[[ModuleType], str]) -> Any:
    found: Any = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise CommandError(f"{module.__name__} has no '{path}'.{suggestion(module)}")
        found = getattr(found, name)
    return found


def _suggestion(module: ModuleType) -> str:
    runtimes = [name for name, value in vars(module).items() if isinstance(value, Runtime)]
    return f" It has this Runtime: {module.__name__}:{runtimes[0]}" if runtimes else " It has no Runtime at all."


def _made_by(found: Any, target: str) -> Any:
    if isinstance(found, type) or not callable(found):
        return found
    if iscoroutinefunction(found):  # Calling it would only make a coroutine that nothing awaits.
        raise CommandError(
            f"{target} is an async function, which makes nothing before it is awaited. Name what it "
            "would give, or a function with `def` that returns it."
        )
    try:
        made = found()
    except USER_ERRORS as error:
        raise _user_code_failed(f"Calling {target}", error) from error
    if iscoroutine(made):
        made.close()
    return made


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def _user_code_failed(what: str, error: BaseException) -> CommandError:
    """Where and why. The place is the last line in the user's own folder: an error in a library began there."""
    if is_from_signal(error):
        return InterruptedCommandError(f"{what} was interrupted. Nothing was served.")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, DurablyError):
        frames = [frame for frame in frames if Path(__file__).parents[1] not in Path(frame.filename).parents]
    frames = [frame for frame in frames if _is_of_the_user(Path(frame.filename))] or frames
    where = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    if isinstance(error, SystemExit):
        return CommandError(
            f"{what} failed{where}: it ended the process, by {error!r}. Put what a script does at its end under "
            "`if __name__ == '__main__':`."
        )
    return CommandError(f"{what} failed{where}: {type(error).__name__}: {error}")


def _is_of_the_user(path: Path) -> bool:
    """Whether a file is in the current folder, and not among packages installed there."""
    return path.is_relative_to(Path.cwd()) and "site-packages" not in path.parts
