"""`durably serve --standby`: a second process on the machine waits for the store, and takes over when it is free."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from durably import DefinitionError, Runtime
from durably.storage.standby import file_system_of, refuse_network
from tests.processes import PATIENCE_SECONDS, eventually, serving

APPLICATION = """
from durably import ObjectContext, Runtime, VirtualObject, handler, state

class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.count += 1
        return self.count

runtime = Runtime("sqlite:///app.db", [Counter])
"""


def add(url: str) -> httpx.Response:
    return httpx.post(f"{url}/Counter/one/add", timeout=PATIENCE_SECONDS)


def answers(url: str, count: int) -> bool:
    with suppress(httpx.TransportError):
        response = add(url)
        return response.status_code == 200 and response.json() == count
    return False


@pytest.mark.slow
def test_a_standby_names_the_holder_and_takes_over_when_that_is_stopped_or_killed(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    with (
        serving("application:runtime", "--standby", cwd=tmp_path) as first,
        serving("application:runtime", "--standby", cwd=tmp_path) as second,
    ):
        assert eventually(lambda: answers(first.url, 1))
        refusal = add(second.url)
        assert refusal.status_code == 503
        assert f"in use by process {first.process.pid}" in refusal.json()["message"]
        assert (refusal.headers["retry-after"], refusal.headers["x-durably-accepted"]) == ("1", "no")
        assert first.stop() == 0
        assert eventually(lambda: answers(second.url, 2))
        with serving("application:runtime", "--standby", cwd=tmp_path) as third:
            second.kill()
            assert eventually(lambda: answers(third.url, 3))


def test_what_nobody_can_take_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="has nothing that a standby could take over"):
        Runtime("memory:", []).stand_by()
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nserver:/data {tmp_path}/far nfs4 rw 0 0\n/dev/sdb1 {tmp_path}/far/near xfs rw 0 0\n"
    )
    assert file_system_of(tmp_path / "app.db", mounts) == "ext4"
    assert file_system_of(tmp_path / "far" / "near" / "app.db", mounts) == "xfs"
    refuse_network(tmp_path / "app.db", mounts)
    with pytest.raises(DefinitionError, match=r"network file system \(nfs4\)"):
        refuse_network(tmp_path / "far" / "app.db", mounts)
