"""`durably encrypt` and `durably decrypt`: the values of a store that is stopped, written anew with a codec or without.

What is read, written and compared is told by a bar on a terminal. However the command ends, the store is the old one or
the new one.
"""

from __future__ import annotations

import os
import socket

from rich.console import Console

from durably.cli.failures import CommandError
from durably.cli.loading import load_codec
from durably.cli.operators.output import Format, print_result
from durably.cli.progress import bars_of
from durably.cli.reading import store_file
from durably.codecs import Codec
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.runtime.clock import SystemClock
from durably.storage.recoding import Recoded, Stage, recode
from durably.storage.records import Owner

STAGES = {
    Stage.WRITING: "Writing anew",
    Stage.VERIFYING: "Reading back",
    Stage.REPLACING: "Replacing the store",
}


def encrypt(url: str, codec: str, *, old_codec: str | None, format: Format) -> None:
    """Write all values of the store with a codec; those that another one wrote, or an older key, too.

    Raises:
        CommandError: the codec or the store cannot be had.

    """
    new = load_codec(codec)
    old = new if old_codec is None else load_codec(old_codec)
    _tell(url, _recoded(url, old, new), f"were written with {codec}", format=format)


def decrypt(url: str, codec: str, *, format: Format) -> None:
    """Write all values of the store in plain.

    Raises:
        CommandError: the codec or the store cannot be had.

    """
    _tell(url, _recoded(url, load_codec(codec), None), "were written in plain", format=format)


def _recoded(url: str, old: Codec, new: Codec | None) -> Recoded:
    owner = Owner(host=socket.gethostname(), process_id=os.getpid(), since=SystemClock().now())
    try:
        store = store_file(url)
        with bars_of(STAGES) as progressed:
            return recode(store.path, owner=owner, old=old, new=new, progressed=progressed)
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error


def _tell(url: str, recoded: Recoded, done: str, *, format: Format) -> None:
    print_result(
        {"store": url, "values": recoded.values, "bytes": recoded.bytes},
        format,
        names=[url],
        tell=lambda: Console(highlight=False, soft_wrap=True).print(
            f"{recoded.values:,} values of {recoded.bytes:,} bytes in {url} {done}, read back and compared. Backups "
            "that were made before are what they were.",
            markup=False,
        ),
    )
