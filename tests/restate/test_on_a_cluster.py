"""Actors, unchanged, on a Restate server: every verb once, through the ingress and among each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from durably import (
    AlreadyCompletedError,
    AlreadyStartedError,
    CancelledInvocationError,
    DeadlineExceededError,
    InvalidArgumentError,
    InvocationStatus,
    TerminalError,
    UnknownTargetError,
)
from durably.restate import Client
from tests.processes import PATIENCE_SECONDS
from tests.restate.cluster import Cluster, Deployed
from tests.restate.programs import Approval, Counter, Depot, Desk, OutOfStockError, Parcel, Sealed, Seat, Signup

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["public", "vm"])
def deployed(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """With either engine; each wait ends the attempt, so everything is replayed."""
    environment = {"ENGINE": request.param, "SUSPEND_AFTER": "0"}
    one = Deployed(cluster, "tests.restate.programs:app", environment=environment)
    try:
        yield one
    finally:
        one.end()


@pytest.fixture
async def client(cluster: Cluster, deployed: Deployed) -> AsyncIterator[Client]:
    async with Client(cluster.url, admin_url=cluster.admin_url) as one:
        yield one


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """Of an object that no other test uses."""
    name: str = request.node.name
    return name.replace("[", "-").replace("]", "")


async def _eventually(client: Client, key: str, number: int) -> None:
    for _ in range(200):
        if await client.object(Counter, key).get() == number:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await client.object(Counter, key).get())


async def test_plain_asyncio_runs_as_it_does_on_a_runtime(client: Client, key: str) -> None:
    told = await client.service(Desk).work(key)
    assert told["sum"] == 60
    assert told["seats"] == [True, True, True]
    assert told["late"] == "timed out"
    assert told["sold"] == "OutOfStockError umbrella 409"
    assert sorted(told["queue"]) == [0, 10, 20, 30]
    assert 0.05 <= told["took"] < 60


async def test_state_is_kept_by_name_and_by_attribute(client: Client, key: str) -> None:
    counter = client.object(Counter, key)
    assert await counter.add(5) == 5
    assert await counter.remember("a") == ["a"]
    assert await counter.remember("b") == ["a", "b"]
    assert await counter.names() == ["last", "number", "seen"]
    assert await counter.get() == 5
    assert await counter.forget() == []
    assert await counter.get() == 0


async def test_a_shared_handler_replays_what_it_has_read(client: Client, key: str) -> None:
    counter = client.object(Counter, key)
    await counter.add(1)
    told = await counter.report.send(1)
    while await told.status() is not InvocationStatus.SUSPENDED:
        await asyncio.sleep(0.02)
    await counter.add(1)
    assert await told.result() == [1, 10, 1, ["number"]]
    assert await counter.get() == 2


async def test_a_step_that_fails_tells_restate_nothing(client: Client, key: str) -> None:
    assert await client.object(Counter, key).flaky(3) == 1
    await _eventually(client, f"{key}-other", 1)
    assert await client.object(Counter, f"{key}-other").get() == 1


async def test_an_atomic_handler_that_fails_changes_and_sends_nothing(client: Client, key: str) -> None:
    with pytest.raises(TerminalError, match="an id that was not told") as caught:
        await client.object(Counter, key).all_or_nothing(True)
    assert caught.value.code == 418
    assert await client.object(Counter, key).get() == 0
    assert await client.object(Counter, key).all_or_nothing(False) == 100
    await _eventually(client, f"{key}-other", 1)


async def test_errors_arrive_in_their_own_class_with_their_fields(client: Client) -> None:
    with pytest.raises(OutOfStockError, match="no umbrella") as caught:
        await client.service(Desk).sell("umbrella")
    assert (caught.value.code, caught.value.item) == (409, "umbrella")


async def test_an_argument_that_does_not_fit_is_refused(client: Client) -> None:
    with pytest.raises(InvalidArgumentError):
        await client.call("Counter", "add", key="x", argument="many")
    with pytest.raises(UnknownTargetError):
        await client.call("Nobody", "add", key="x", argument=1)


async def test_headers_reach_handlers_and_go_on_where_a_call_says_so(client: Client) -> None:
    told = await client.service(Desk).pass_on.options(headers={"tenant": "north", "other": "x"})()
    assert told["tenant"] == "north"
    assert "other" not in told


async def test_an_action_fails_for_good_when_its_policy_says_so(client: Client) -> None:
    assert await client.service(Desk).try_in_vain(3) == "call 3 ConnectionError no line"


async def test_a_workflow_waits_for_its_promise_and_runs_once(client: Client, key: str) -> None:
    workflow = client.workflow(Signup, key)
    sent = await workflow.run.send("m@example.com")
    assert await workflow.peek() is None
    await workflow.click("1234")
    assert await workflow.run.attach() == "m@example.com 1234"
    assert await workflow.peek() == "1234"
    assert await workflow.address() == "m@example.com"
    with pytest.raises(AlreadyCompletedError):
        await workflow.click("again")
    assert (await workflow.run.send("other@example.com")).id == sent.id


async def test_a_workflow_that_was_started_is_not_started_by_a_call(client: Client, key: str) -> None:
    assert await client.service(Desk).start_twice(key) == "AlreadyStartedError 409"
    with pytest.raises(AlreadyStartedError):
        await client.workflow(Signup, key).run("m@example.com")


async def test_an_atomic_handler_completes_promises_with_its_outcome(client: Client, key: str) -> None:
    assert await client.workflow(Sealed, key).run() == "sealed"
    assert await client.workflow(Sealed, key).peek() == "wax"


async def test_an_invocation_that_is_not_there_is_told(client: Client, key: str) -> None:
    sent = await client.object(Counter, key).add.send(1)
    assert await client.service(Desk).ask_for(sent.id) == "1"
    nothing = sent.id[:-6] + "aaaaaa"
    assert await client.service(Desk).ask_for(nothing) == "UnknownTargetError 404"


async def test_an_awakeable_is_resolved_by_handlers_and_from_outside(client: Client, key: str) -> None:
    approval = client.service(Approval)

    async def id_of(name: str) -> str:
        for _ in range(200):
            seen = await client.object(Counter, name).names()
            if "last" in seen:
                break
            await asyncio.sleep(0.05)
        seen = await client.object(Counter, name).remember("")
        return seen[0]

    first = await approval.wait.send(f"{key}-1")
    second = await approval.wait.send(f"{key}-2")
    third = await approval.wait.send(f"{key}-3")
    await approval.approve(await id_of(f"{key}-1"), "mary")
    await client.resolve_awakeable(await id_of(f"{key}-2"), "joe")
    await approval.reject(await id_of(f"{key}-3"))
    assert await first.result() == "approved by mary"
    assert await second.result() == "approved by joe"
    assert await third.result() == "rejected: not today 451"


async def test_ids_are_those_of_restate(client: Client) -> None:
    sent, called = await client.service(Desk).which()
    assert sent != called
    assert await client.invocation(sent, int).result() >= 1
    assert sent.startswith("inv_1")
    assert called.startswith("inv_1")


async def test_a_delayed_message_comes_when_it_is_due(client: Client, key: str) -> None:
    await client.object(Counter, key).add.after(seconds=0.2).send(7)
    assert await client.object(Counter, key).get() == 0
    await _eventually(client, key, 7)


async def test_an_idempotency_key_makes_two_sends_one(client: Client, key: str) -> None:
    once = client.object(Counter, key).add.options(idempotency_key=key)
    assert await once(3) == await once(3) == 3
    assert await client.object(Counter, key).get() == 3


async def test_a_cancel_reaches_the_handler_and_what_it_calls(client: Client, key: str) -> None:
    sent = await client.service(Desk).outer.send(key)
    await _eventually(client, key, 10)
    assert await sent.status() in (InvocationStatus.RUNNING, InvocationStatus.SUSPENDED)
    await sent.cancel()
    with pytest.raises(CancelledInvocationError):
        await sent.result()
    await _eventually(client, key, 12)  # The callee's `finally`, and the compensation.
    assert await sent.status() is InvocationStatus.COMPLETED


async def test_a_deadline_of_the_handler_cancels_it(client: Client, key: str) -> None:
    with pytest.raises(DeadlineExceededError):
        await client.service(Desk).dawdle(key)
    await _eventually(client, key, 1)


async def test_a_deadline_of_a_call_holds_for_the_callee(client: Client, key: str) -> None:
    assert await client.service(Desk).hurry(key) == "DeadlineExceededError 504"
    await _eventually(client, key, 1)


async def test_a_caller_hears_of_its_limit_while_what_it_called_tidies_up(client: Client, key: str) -> None:
    assert await client.service(Desk).give_up_on(key) == "DeadlineExceededError 504, 0 tidied up"
    while "last" not in await client.object(Counter, key).names():
        await asyncio.sleep(0.05)
    first, *_ = await client.object(Counter, key).remember("")
    await client.resolve_awakeable(first, "enough")
    await _eventually(client, key, 1)
    assert await client.service(Desk).in_time(key) == [2, 3]


async def test_what_restate_does_not_do_is_refused_where_it_is_used(client: Client, cluster: Cluster) -> None:
    sent = await client.service(Desk).ask_for_a_signal.send()
    failure = ""
    for _ in range(200):
        rows = cluster.query(f"select last_failure from sys_invocation where id = '{sent.id}'")
        failure = (rows[0].get("last_failure") or "") if rows else ""
        if failure:
            break
        await asyncio.sleep(0.05)
    assert "On Restate: ctx.signal() was used." in failure
    await sent.cancel()
    with pytest.raises(TypeError, match="On Restate: A signal was sent"):
        await sent.signal("go", 1)


async def test_seats_are_taken_once(client: Client, key: str) -> None:
    taken = await asyncio.gather(*(client.object(Seat, key).reserve() for _ in range(5)))
    assert sorted(taken) == [False] * 4 + [True]


async def test_serdes_and_middleware_are_those_of_a_runtime(client: Client, key: str, cluster: Cluster) -> None:
    depot = client.object(Depot, key)
    assert await depot.take(Parcel("a", b"\x00\xff")) == Parcel("a", b"\x00\xff", "stamp of a, seen")
    with pytest.raises(TerminalError, match="An empty parcel") as refused:
        await depot.take(Parcel("b", b""))
    assert refused.value.code == 400
    assert await depot.turn(b"\x00\xff\x01") == b"\x01\xff\x00"
    assert await depot.count() == 1
    async with httpx.AsyncClient(base_url=cluster.url, trust_env=False, timeout=PATIENCE_SECONDS) as plain:
        image = await plain.post(f"/Depot/{key}/turn", content=b"ab", headers={"content-type": "image/png"})
        assert (image.content, image.headers["content-type"]) == (b"ba", "image/png")
        parcel = msgspec.msgpack.encode({"name": "c", "content": b"x"})
        taken = await plain.post(
            f"/Depot/{key}/take", content=parcel, headers={"content-type": "application/msgpack"}
        )  # fmt: skip
        assert msgspec.msgpack.decode(taken.content)["stamp"] == "stamp of c, seen"


async def test_dependencies_are_made_once_for_a_process_and_torn_down(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    one = Deployed(cluster, "tests.restate.programs:app", environment={"LEDGER": str(ledger)})
    try:
        for number in range(3):
            await client.object(Depot, f"made-{number}").take(Parcel("a", b"x"))
        assert one.stop() == 0
    finally:
        one.end()
    lines = ledger.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("stamps are made", "stamps are gone")
    assert lines.count("stamps are made") == 1
    assert lines.count("stamp of a") == 3
