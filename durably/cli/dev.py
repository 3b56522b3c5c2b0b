"""`durably dev`: a project that starts again whenever a file of it changes.

The process that was started watches the folder. In another one, which it ends and begins anew at each change, the
modules of models are generated, the store is migrated, and the worker and `main` run. Where that ends by itself, or
where there is no project yet, it waits for the next change. The other process ends with this one, however that ends.

Open invocations go on in the next process. What fails pauses at once instead of trying again with the same code, and
tries once more when that has changed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from rich.console import Console

from durably.actors.caller import Caller
from durably.cli.attached import Attachment
from durably.cli.failures import CommandError
from durably.cli.generate import generate_modules
from durably.cli.migrate import machines_of, migrate_store
from durably.cli.projects import Program, configured, program_of, serve_program
from durably.configuration import DEVELOPMENT, FILE_NAME
from durably.configuration import Project as ProjectSettings
from durably.ids import InvocationStatus

LOOK_EVERY_MS: Final = 500
"""How often it looks whether the project still runs."""
_SUFFIXES: Final = (".py", ".rst")
_IGNORED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


def develop(target: str | None, *, reload: bool) -> None:
    """Run a project, its worker and its `main` in one process, until a signal comes.

    Raises:
        CommandError: it cannot be run; with `reload`, that is told and waited for.
    """
    if reload:
        _run_again_and_again(target)
    else:
        _run(target)


def _run(target: str | None) -> None:
    configuration = configured(DEVELOPMENT)
    folder = Path((configuration.project or ProjectSettings()).models)
    if any(folder.glob("*.rst")):
        generate_modules(folder)
    program = program_of(target, configuration)
    program.runtime.use_development()
    if program.store is not None and machines_of(program.runtime):
        migrate_store(program, allow_loss=False)
    serve_program(program, configuration, partial(_go_on, program))


async def _go_on(program: Program, client: Caller) -> None:
    """What failed tries once more, since the code may be right by now. Then comes the program's own `main`."""
    async for one in program.runtime.invocations(status=InvocationStatus.PAUSED):
        if one.description.failed_attempts:
            await program.runtime.resume(one.id)
    if program.main is not None:
        await program.main(client)


def _run_again_and_again(target: str | None) -> None:
    try:
        import watchfiles
    except ModuleNotFoundError:
        raise CommandError(
            "Watching files needs watchfiles: pip install 'durably[cli]'. Without: durably dev --no-reload."
        ) from None
    folder, talk = Path.cwd(), Console(stderr=True, highlight=False, soft_wrap=True)
    command = ["dev", "--no-reload", *([] if target is None else [target])]
    attachment = Attachment()
    running: subprocess.Popen[bytes] | None = None
    with _Signals() as signals:
        try:
            running = attachment.start(command)
            changes = watchfiles.watch(
                folder, watch_filter=lambda _, path: is_of_a_project(folder, Path(path)), yield_on_timeout=True,
                rust_timeout=LOOK_EVERY_MS, raise_interrupt=True,
            )  # fmt: skip
            for changed in changes:
                if changed:
                    _end(running)
                    talk.print(
                        f"Changed: {', '.join(sorted({Path(path).name for _, path in changed}))}. Starting again."
                    )
                    running = attachment.start(command)
                elif running is not None and running.poll() is not None:
                    talk.print("Waiting for a file to change. (Ctrl-C stops)")
                    running = None
        except KeyboardInterrupt:
            pass
        finally:
            _end(running, knows=signals.all_heard)
            attachment.close()


def is_of_a_project(folder: Path, path: Path) -> bool:
    """A change of this file means another project. What is generated follows from its file of models."""
    inside = path.relative_to(folder) if path.is_relative_to(folder) else path
    if any(part.startswith(".") or part in _IGNORED for part in inside.parts):
        return False
    return path.name == FILE_NAME or (path.suffix in _SUFFIXES and not _is_generated(path))


def _is_generated(path: Path) -> bool:
    try:
        from durably.model_files.rendering import GENERATED

        return path.suffix == ".py" and GENERATED in path.read_text("utf-8", errors="replace")[:1_000]
    except (ModuleNotFoundError, OSError):  # Nothing here generates; or it was removed.
        return False


def _end(running: subprocess.Popen[bytes] | None, *, knows: bool = False) -> None:
    """Let it drain. A second signal would cut that short, so one that knows gets none."""
    if running is not None and running.poll() is None:
        if not knows:
            running.terminate()
        running.wait()


class _Signals:
    """SIGTERM ends the command as Ctrl-C does. Ctrl-C at a terminal goes to all processes that it began, too."""

    def __init__(self) -> None:
        self.all_heard = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.all_heard = number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()
        raise KeyboardInterrupt
