"""Tells a process which other one runs on a store: an operating-system lock on a side file that names its holder.

The lock only gives the early, friendly error. Safety comes from the epoch that every commit checks (rule X4), and from
the look at this file that comes before every reply which follows from no commit (rule X9): an owner whose lock file was
deleted answers nothing until it has locked the file anew and has found no other owner's epoch.

A forked child does not hold the lock: it would keep the store locked after its parent was killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from durably.errors import StoreInUseError, StoreUnavailableError
from durably.storage.files import FileIdentity
from durably.storage.records import Owner

# Windows forbids reading what is locked, so the byte that is locked lies far behind the content.
LOCKED_BYTE = 1 << 30
CONTENT_LIMIT_BYTES = 4096

_decode_owner = msgspec.json.Decoder(Owner).decode
_encode_owner = msgspec.json.Encoder().encode


def describe_owner(owner: Owner) -> str:
    since = datetime.fromtimestamp(owner.since / 1_000_000, UTC).isoformat(timespec="seconds")
    return f"process {owner.process_id} on {owner.host} since {since}"


def held_sentence(store: str, owner: Owner | None) -> str:
    """What to tell somebody who tries to open a store that is in use."""
    holder = describe_owner(owner) if owner is not None else "another process"
    return f"The store {store} is in use by {holder}. Stop that runtime first, or give this one a store of its own."


def taken_over_sentence(store: str, owner: Owner | None) -> str:
    """What to tell an owner who is one no longer."""
    holder = describe_owner(owner) if owner is not None else "another process"
    return (
        f"The store {store} has been taken over by {holder}, so nothing more is written here. "
        "Two runtimes were started on one store; stop one of them."
    )


class OwnerLock:
    """The lock on the side file of one database."""

    __slots__ = ("_descriptor", "_owner", "_path", "_store")

    def __init__(self, path: Path, store: str) -> None:
        self._path = path
        self._store = store
        self._descriptor: int | None = None
        self._owner: Owner | None = None

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def refuse_other(self, owner: Owner) -> None:
        """Raise if this very object is held by another owner.

        Raises:
            StoreInUseError: it is.
        """
        if self._owner is not None and self._owner != owner:
            raise StoreInUseError(held_sentence(self._store, self._owner))

    def acquire(self, owner: Owner) -> None:
        """Take the lock, or keep it, and write who holds it.

        Raises:
            StoreInUseError: somebody else holds it.
            StoreUnavailableError: the file cannot be made or locked.
        """
        if self._descriptor is not None and not _is_same_file(self._descriptor, self._path):
            self.release()
        if self._descriptor is None:
            self._descriptor = self._acquire()
            _held.add(self)
        # A full disk may have no room for the name of the holder. The lock is held all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, _encode_owner(owner))
        self._owner = owner

    def identity(self) -> FileIdentity:
        """The file that is locked, wherever it lies by now. Only while the lock is held."""
        assert self._descriptor is not None
        held = os.fstat(self._descriptor)
        return FileIdentity(held.st_dev, held.st_ino)

    def drop_in_child(self) -> None:
        """Close what a forked child inherited: a lock lasts until its last descriptor is closed, in any process."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = self._owner = None

    def release(self) -> None:
        """Let the lock go. The file stays: deleting it would let two owners lock two files of one name."""
        if self._descriptor is not None:
            if _is_same_file(self._descriptor, self._path):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = self._owner = None
            _held.discard(self)

    def _acquire(self) -> int:
        while True:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            except OSError as error:
                raise StoreUnavailableError(self._cannot_lock_sentence(error)) from error
            try:
                locked = _try_lock(descriptor)
            except OSError as error:
                os.close(descriptor)
                raise StoreUnavailableError(self._cannot_lock_sentence(error)) from error
            if not locked:
                os.close(descriptor)
                raise StoreInUseError(held_sentence(self._store, self._read_holder()))
            if _is_same_file(descriptor, self._path):
                return descriptor
            # Somebody deleted the file between our opening and our locking it: what we hold is the lock of nothing.
            os.close(descriptor)

    def _read_holder(self) -> Owner | None:
        try:
            with self._path.open("rb") as file:
                return _decode_owner(file.read(CONTENT_LIMIT_BYTES))
        except (OSError, msgspec.DecodeError):
            return None

    def _cannot_lock_sentence(self, error: OSError) -> str:
        if error.errno == errno.ENOSPC:
            return (
                f"The store {self._store} cannot be opened: its lock file {self._path} cannot be made. The disk is "
                "full. Free some space."
            )
        return (
            f"The store {self._store} cannot be opened: its lock file {self._path} cannot be made or locked "
            f"({error.strerror}). The folder must exist, be writable, and lie on a local disk."
        )


_held: set[OwnerLock] = set()
"""All that this process holds; a lock that was forgotten without being released is held too."""


def _drop_in_child() -> None:
    for lock in _held:
        lock.drop_in_child()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
