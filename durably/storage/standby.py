"""`prepare_standby`: whether a second process can wait for a store, and what it says of itself when it has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from durably.errors import DefinitionError
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore
from durably.storage.store import Store
from durably.storage.wrapping import WrappedStore

MOUNTS: Final = Path("/proc/self/mounts")
NETWORK_FILE_SYSTEMS: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2",
    "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs",
})  # fmt: skip


@runtime_checkable
class AdvertisingStore(Protocol):
    """A store that tells those who find it in use where its owner serves."""

    advertised: str


def prepare_standby(store: Store, address: str) -> None:
    """Let the store tell others that requests are served at `address`, once it is open.

    Raises:
        DefinitionError: no second process can ever take this store over.
    """
    while isinstance(store, WrappedStore):
        store = store.inner
    if isinstance(store, MemoryStore):
        raise DefinitionError("A store in memory has nothing that a standby could take over. Name a file or a server.")
    if isinstance(store, SqliteStore):
        refuse_network(store.path, MOUNTS)
    if isinstance(store, AdvertisingStore):
        store.advertised = address


def refuse_network(path: Path, mounts: Path) -> None:
    """
    Raises:
        DefinitionError: the file lies on another machine, where its lock does not say who has it.
    """
    kind = file_system_of(path.absolute(), mounts) if sys.platform == "linux" else ""
    if kind in NETWORK_FILE_SYSTEMS:
        raise DefinitionError(
            f"The store {path} lies on a network file system ({kind}), where a lock does not say reliably who has the "
            "file. A standby of SQLite waits on the same machine, on a local disk; across machines, use PostgreSQL."
        )


def file_system_of(path: Path, mounts: Path) -> str:
    """The kind of the innermost mount that a path lies on; empty where the system does not tell it."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    resolved = path.resolve()
    best, kind = -1, ""
    for line in lines:
        point, found = line.split(" ")[1:3]
        place = Path(point.replace("\\040", " ").replace("\\011", "\t"))
        if (resolved == place or place in resolved.parents) and len(place.parts) >= best:
            best, kind = len(place.parts), found
    return kind
