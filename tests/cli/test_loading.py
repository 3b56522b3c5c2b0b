from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from durably.cli.failures import CommandError
from durably.cli.loading import load_runtime

ACTOR = """
import signal
import sys
from durably import Context, Runtime, Service, handler

class Greeter(Service):
    @handler
    async def greet(self, ctx: Context) -> str:
        return "hello"

def make():
    return Runtime("memory:", [Greeter])
"""

FAILED = r"Importing application failed in .*application\.py, line 13: "

Write = Callable[[str], None]


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `application.py` into an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "application", raising=False)

    def write(text: str) -> None:
        (tmp_path / "application.py").write_text(ACTOR + text)

    return write


def names_served(target: str) -> list[str]:
    return [service.name for service in load_runtime(target).describe()]


def test_a_runtime_is_found_in_the_current_folder(application: Write) -> None:
    application("runtime = make()")
    assert names_served("application:runtime") == ["Greeter"]


def test_a_function_without_parameters_makes_one(application: Write) -> None:
    application("")
    assert names_served("application:make") == ["Greeter"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("async def main():\n    return make()", "main is an async function"),
        ("async def later():\n    pass\n\ndef main():\n    return later()", "main is of type coroutine, not a Runtime"),
    ],
)
def test_an_async_function_is_refused_without_a_warning(application: Write, text: str, sentence: str) -> None:
    application(text)
    with pytest.raises(CommandError, match=sentence):
        load_runtime("application:main")
    gc.collect()  # What was never awaited would warn here at the latest.


def test_an_attribute_of_an_attribute_is_found(application: Write) -> None:
    application("class settings:\n    runtime = make()")
    assert names_served("application:settings.runtime") == ["Greeter"]


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        ("", "application", r"'application' does not name a runtime. Write module:attribute"),
        ("", "application:", r"does not name a runtime"),
        ("", "nothing_here:runtime", r"There is no module named 'nothing_here', neither in .* nor where packages are"),
        ("", "application.inner:runtime", r"There is no module named 'application\.inner'"),
        ("import nothing_here", "application:runtime", FAILED + "ModuleNotFoundError: No module named 'nothing_here'"),
        ("1/0", "application:runtime", FAILED + "ZeroDivisionError"),
        ("__import__('json').loads('{')", "application:runtime", FAILED + "JSONDecodeError"),
        ("runtime = make(", "application:runtime", FAILED + r"SyntaxError: '\(' was never closed"),
        ("", "application.py:runtime", r"'application\.py' is a file\. Write the module: application\."),
        ("app = make()", "application:runtime", r"application has no 'runtime'\. It has this Runtime: application:app"),
        ("", "application:runtime", r"application has no 'runtime'\. It has no Runtime at all"),
        ("runtime = 7", "application:runtime", r"application:runtime is of type int, not a Runtime"),
        ("", "application:Greeter", r"application:Greeter is the class Greeter, not a Runtime"),
        ("", "application:Runtime", r"application:Runtime is the class Runtime, not a Runtime"),
        ("def runtime(): return 7", "application:runtime", r"application:runtime is of type int, not a Runtime"),
        ("def runtime(store): ...", "application:runtime", r"Calling application:runtime failed.*TypeError"),
        ("def runtime(): 1/0", "application:runtime", r"Calling .* failed in .*application\.py, line 13: Zero"),
        ("runtime = Runtime('memory:', Greeter)", "application:runtime", FAILED + r".*write \[Greeter\]"),
        ("runtime = Runtime('mongodb://x', [Greeter])", "application:runtime", FAILED + "DefinitionError: .*mongodb"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_told_in_one_sentence(application: Write, text: str, target: str, says: str) -> None:
    application(text)
    with pytest.raises(CommandError, match=says) as error:
        load_runtime(target)
    assert "\n" not in str(error.value)


def test_a_module_that_ends_the_process_is_a_sentence(application: Write) -> None:
    application("sys.exit(0)")
    with pytest.raises(CommandError, match=r"application\.py, line 13: it ended the process, by SystemExit\(0\)"):
        load_runtime("application:make")


def test_ctrl_c_while_a_module_is_imported_is_a_sentence(application: Write) -> None:
    application("signal.raise_signal(signal.SIGINT)")
    with pytest.raises(CommandError, match="Importing application was interrupted") as interrupted:
        load_runtime("application:make")
    assert interrupted.value.status == 130
