"""`StoreFiles`: where a SQLite store lies, and whether the files that are open still lie there.

A path is made absolute and its symbolic links are followed when the store is first opened; after that neither a `chdir`
nor a changed link leads elsewhere. While the store is open, the files at the path must be the open ones: what is
written into a deleted or renamed file cannot be found again (rule X9).

Files are compared by `stat` alone. To open and close the database here would drop the locks that SQLite holds on it:
POSIX drops all locks of a process on a file when the process closes any descriptor of that file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from durably.errors import StoreUnavailableError
from durably.storage.file_changes import FileChanges, StoredIdentity

LOCK_SUFFIX = ".lock"
LOG_SUFFIX = "-wal"
LOG_INDEX_SUFFIX = "-shm"


DATABASE: Final = "its database"
LOG: Final = "its write-ahead log"


class FileIdentity(NamedTuple):
    """What stays the same for as long as a file is open, even if it is renamed."""

    device: int
    inode: int


class PinnedFile(NamedTuple):
    """A file that is open, and the path at which it must be found."""

    path: str
    device: int
    inode: int
    what: str


class StoreFiles:
    """The database, its lock file and the two files of its write-ahead log."""

    def __init__(self, path: Path, store: str) -> None:
        self._path = path
        self._store = store
        self._database: Path | None = None
        self._pinned: tuple[PinnedFile, ...] = ()
        self._pinned_for_owner: tuple[PinnedFile, ...] = ()
        self._mode = 0
        self.changes: FileChanges | None = None
        """While the store is open: whether somebody else writes to its files."""
        self.log_path = ""
        """Where the write-ahead log lies; known once the path is resolved."""

    def resolve(self) -> Path:
        """The real path of the database, the same for ever after the first call."""
        if self._database is None:
            self._database = Path(os.path.realpath(self._path))
            self.log_path = f"{self._database}{LOG_SUFFIX}"
        return self._database

    @property
    def lock(self) -> Path:
        return Path(f"{self.resolve()}{LOCK_SUFFIX}")

    def find(self) -> FileIdentity | None:
        """The file that lies at the path now; None where none does.

        Raises:
            StoreUnavailableError: it cannot be looked at, is no regular file, or has several names.
        """
        path = self.resolve()
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailableError(
                f"The store {self._store} cannot be opened: {path} cannot be looked at ({error.strerror}). Check the "
                "path, and the permissions of the folders on it."
            ) from error
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise StoreUnavailableError(
                f"The store {self._store} cannot be opened: {path} is {what}. Name a file inside a folder."
            )
        if found.st_nlink > 1:
            raise StoreUnavailableError(
                f"The store {self._store} cannot be opened: {path} has {found.st_nlink} names (hard links). Under "
                "another name SQLite would not find its write-ahead log, and two runtimes could run on it at once. "
                "Delete the other names, or open a copy made with SQLite's `.backup`."
            )
        if is_mount_point(path, _mounts()):
            raise StoreUnavailableError(
                f"The store {self._store} cannot be opened: {path} is mounted by itself (as a container does with a "
                "volume that is one file), so its write-ahead log would lie elsewhere than the file. Mount the folder."
            )
        return FileIdentity(found.st_dev, found.st_ino)

    def pin(self, database: FileIdentity, lock: FileIdentity, read: Callable[[], StoredIdentity | None]) -> None:
        """From now on these files, and those of the log that lie there now, are the open ones.

        `read` looks into the database without its log.
        """
        path = self.resolve()
        self._mode = os.stat(path).st_mode
        self.changes = FileChanges(self._store, path, self.log_path, read)
        pinned = [
            PinnedFile(str(path), *database, DATABASE),
            PinnedFile(str(self.lock), *lock, "its lock file"),
        ]
        for suffix, what in ((LOG_SUFFIX, LOG), (LOG_INDEX_SUFFIX, "the index of its log")):
            beside = f"{path}{suffix}"
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(beside)
                pinned.append(PinnedFile(beside, found.st_dev, found.st_ino, what))
        self._pinned = tuple(pinned)
        self._pinned_for_owner = self._pinned[:2]

    def unpin(self) -> None:
        self._pinned = self._pinned_for_owner = ()
        self.changes = None

    def has_log(self) -> bool:
        """A write-ahead log lies beside the database."""
        return os.path.exists(self.log_path)

    def note_commit(self, position: int) -> None:
        """All up to there is in the database or its log."""
        if self.changes is not None:
            self.changes.committed = position

    def check_log(self) -> None:
        """Return if the write-ahead log holds all that was written to it.

        Raises:
            StoreUnavailableError: it was cut off.
        """
        if self.changes is not None:
            try:
                self.changes.check_log()
            except OSError:  # That it is gone is for `check` to say.
                return

    @property
    def log_bytes(self) -> int:
        """How large the log was when it was last checked, which each commit does; 0 just after a checkpoint."""
        return 0 if self.changes is None else self.changes.log_bytes

    @contextmanager
    def checkpoint(self) -> Generator[None]:
        """Around a checkpoint, which changes the database and its log."""
        if self.changes is None:
            yield
        else:
            with self.changes.checkpoint():
                yield

    def check_owner(self) -> None:
        """Return if the open database and the lock are the ones at the path: then no other process owns it (rule X9).

        Raises:
            StoreUnavailableError: one of them was deleted, renamed or replaced.
        """
        self._check(self._pinned_for_owner)

    def check(self) -> None:
        """The same for all files, those of the log too: then what was committed will be found again.

        May be called in any thread.

        Raises:
            StoreUnavailableError: one of them was deleted, renamed or replaced.
        """
        self._check(self._pinned)

    def _check(self, pinned: tuple[PinnedFile, ...]) -> None:
        changes = self.changes
        for path, device, inode, what in pinned:
            try:
                found = changes.check_log() if what is LOG and changes is not None else os.stat(path)
            except OSError as error:
                raise StoreUnavailableError(self._gone_sentence(path, what, error)) from error
            if found.st_ino != inode or found.st_dev != device:
                raise StoreUnavailableError(
                    f"The store {self._store} has lost {what}: another file lies at {path} than the one that was "
                    "opened. Nothing more is acknowledged until the store has been opened again."
                )
            if what is DATABASE:
                self._check_database(found)

    def _check_database(self, found: os.stat_result) -> None:
        if found.st_nlink > 1:
            raise StoreUnavailableError(
                f"The store {self._store} has got another name while it was open: {self._database} has "
                f"{found.st_nlink} (hard links). Under another name SQLite would not find its write-ahead log, and two "
                "runtimes could run on it at once. Nothing more is acknowledged until the other names are deleted."
            )
        if found.st_mode != self._mode:
            if not os.access(self.resolve(), os.R_OK | os.W_OK):
                raise StoreUnavailableError(
                    f"The store {self._store} may not be read and written any more: the permissions of "
                    f"{self._database} were taken away while it was open. Nothing more is acknowledged until they are "
                    "given back."
                )
            self._mode = found.st_mode
        if self.changes is not None:
            self.changes.check_database(found)

    def _gone_sentence(self, path: str, what: str, error: OSError) -> str:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return (
                f"The store {self._store} has lost {what}: {path} was deleted, renamed or moved while it was open. "
                "Nothing more is acknowledged until the store has been opened again."
            )
        return (
            f"The store {self._store} cannot be looked at any more: {what} {path} ({error.strerror}). Nothing more is "
            "acknowledged until it can. Check the permissions of the folders on the path."
        )


def is_mount_point(path: Path, mounts: str) -> bool:
    """Whether this file is a mount of its own, by the table that Linux keeps in `/proc/self/mountinfo`."""
    escaped = "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in str(path))
    return any(line.split(" ")[4] == escaped for line in mounts.splitlines())


def _mounts() -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # Other systems have no such table.
        return ""
