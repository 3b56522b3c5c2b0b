"""Every handler of the services, over HTTP: in this process, with nothing resident at any await, and served."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.conformance.object_interpreter import Kind
from tests.conformance.suite import Suite, failure, in_process, new_key, new_number, path_of, served_by
from tests.processes import PATIENCE_SECONDS, ServerProcess, serving

SECOND = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving("tests.conformance_app:runtime", cwd=tmp_path_factory.mktemp("conformance")) as server:
        yield server


@pytest.fixture(params=["in-process", "nothing-resident", pytest.param("served", marks=pytest.mark.slow)])
async def suite(request: pytest.FixtureRequest) -> AsyncIterator[Suite]:
    how: str = request.param
    if how == "served":
        async with served_by(request.getfixturevalue("server")) as suite:
            yield suite
    else:
        async with in_process(nothing_resident=how == "nothing-resident") as suite:
            yield suite


@pytest.fixture
def key() -> str:
    return new_key()


@pytest.fixture
def number() -> int:
    """A key of the objects whose programs have numbers for keys."""
    return new_number()


def proxied(handler: str, body: bytes, *, key: str | None = None, service: str = "Counter", **more: Any) -> Any:
    """A `ProxyRequest`."""
    return {
        "serviceName": service, "virtualObjectKey": key, "handlerName": handler, "message": list(body), **more,
    }  # fmt: skip


# ---------------------------------------------------------------- state
async def test_a_counter_counts_and_keeps_what_it_added_before_it_failed(suite: Suite, key: str) -> None:
    counter = path_of("Counter", key, "")
    assert await suite.call(f"{counter}get") == 0
    assert await suite.call(f"{counter}add", 5) == {"oldValue": 0, "newValue": 5}
    assert await suite.call(f"{counter}add", -7) == {"oldValue": 5, "newValue": -2}
    failed = await suite.fail(f"{counter}addThenFail", 10)
    assert (failed["code"], failed["message"]) == (500, key)
    assert await suite.call(f"{counter}get") == 8
    assert (await suite.ingress.get(f"{counter}get")).json() == 8
    assert await suite.call(f"{counter}reset") is None
    assert await suite.call(f"{counter}get") == 0


async def test_additions_at_the_same_time_are_one_after_the_other(suite: Suite, key: str) -> None:
    answers = await asyncio.gather(*(suite.call(path_of("Counter", key, "add"), 1) for _ in range(20)))
    assert sorted(answer["newValue"] for answer in answers) == list(range(1, 21))


async def test_a_map_keeps_each_entry_by_itself(suite: Suite, key: str) -> None:
    map, other = path_of("MapObject", key, ""), path_of("MapObject", new_key(), "")
    assert await suite.call(f"{map}get", "a") == ""
    for name, value in (("a", "1"), ("b", "2"), ("a", "3")):
        assert await suite.call(f"{map}set", {"key": name, "value": value}) is None
    await suite.call(f"{other}set", {"key": "a", "value": "4"})
    assert await suite.call(f"{map}get", "a") == "3"
    entries = await suite.call(f"{map}clearAll")
    assert sorted(entries, key=lambda entry: entry["key"]) == [
        {"key": "a", "value": "3"},
        {"key": "b", "value": "2"},
    ]
    assert [await suite.call(f"{map}get", name) for name in "ab"] == ["", ""]
    assert await suite.call(f"{map}clearAll") == []
    assert await suite.call(f"{other}get", "a") == "4"


async def test_a_list_keeps_its_order_and_gives_it_away(suite: Suite, key: str) -> None:
    texts = path_of("ListObject", key, "")
    assert await suite.call(f"{texts}get") == []
    for text in ("b", "a", ""):
        assert await suite.call(f"{texts}append", text) is None
    assert await suite.call(f"{texts}get") == ["b", "a", ""]
    assert await suite.call(f"{texts}clear") == ["b", "a", ""]
    assert await suite.call(f"{texts}clear") == []


# ---------------------------------------------------------------- calls by name
async def test_a_proxy_gives_bytes_and_gets_bytes(suite: Suite, key: str) -> None:
    echoed = await suite.call("/Proxy/call", proxied("uppercaseEcho", b'"ping"', service="TestUtilsService"))
    assert bytes(echoed) == b'"PING"'
    raw = bytes(range(256))
    assert bytes(await suite.call("/Proxy/call", proxied("rawEcho", raw, service="TestUtilsService"))) == raw
    signed = [byte - 256 if byte > 127 else byte for byte in raw]
    request = proxied("rawEcho", b"", service="TestUtilsService") | {"message": signed}
    assert bytes(await suite.call("/Proxy/call", request)) == raw
    assert bytes(await suite.call("/Proxy/call", proxied("reset", b"", key=key))) == b""
    nothing_more = dict.fromkeys(("delayMillis", "idempotencyKey", "scope", "limitKey"))
    assert bytes(await suite.call("/Proxy/call", proxied("get", b"", key=key) | nothing_more)) == b"0"


async def test_what_a_proxy_calls_in_vain_is_its_own_failure(suite: Suite, key: str) -> None:
    nobody = await suite.fail("/Proxy/call", proxied("get", b"", key=key, service="Nobody"))
    assert nobody["code"] == 404
    failed = await suite.fail("/Proxy/call", proxied("addThenFail", b"1", key=key))
    assert (failed["code"], failed["message"]) == (500, key)
    misfit = await suite.fail("/Proxy/call", proxied("add", b'"one"', key=key))
    assert misfit["code"] == 400


async def test_a_one_way_call_has_the_id_of_its_invocation(suite: Suite, key: str) -> None:
    id = await suite.call("/Proxy/oneWayCall", proxied("add", b"2", key=key, idempotencyKey="k"))
    answer = await suite.attach(id)
    assert (answer.json(), answer.headers["x-restate-id"]) == ({"oldValue": 0, "newValue": 2}, id)
    await suite.call("/Proxy/oneWayCall", proxied("add", b"3", key=key, delayMillis=50))
    await suite.eventually(path_of("Counter", key, "get"), 5)


@pytest.mark.parametrize("handler", ["call", "oneWayCall"])
async def test_calls_with_one_idempotency_key_are_one(suite: Suite, key: str, handler: str) -> None:
    request = proxied("add", b"1", key=key, idempotencyKey="k")
    first, second = [await suite.call(f"/Proxy/{handler}", request) for _ in range(2)]
    assert first == second
    named = {"service": "Counter", "key": key, "handler": "add", "idempotencyKey": "k"}
    target = {"target": "idempotentInvocation", **named}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (output := await suite.ask("/restate/output", target)).status_code == 470:
            await asyncio.sleep(0.005)
    assert output.json() == {"oldValue": 0, "newValue": 1}
    assert output.headers["x-restate-id"] == (await suite.ask("/restate/lookup", target)).json()["invocationId"]
    assert await suite.call(path_of("Counter", key, "get")) == 1


@pytest.mark.parametrize("one_way", [(True, False, False), (False, True, False), (True, True, False)])
async def test_calls_and_messages_arrive_in_the_order_in_which_they_were_made(
    suite: Suite, key: str, one_way: tuple[bool, ...]
) -> None:
    requests = [
        {
            "proxyRequest": proxied("append", f'"{index}"'.encode(), key=key, service="ListObject"),
            "oneWayCall": is_one_way,
            "awaitAtTheEnd": not is_one_way,
        }
        for index, is_one_way in enumerate(one_way)
    ]
    assert await suite.call("/Proxy/manyCalls", requests) is None
    assert await suite.call(path_of("ListObject", key, "clear")) == ["0", "1", "2"]


async def test_a_call_that_is_not_awaited_happens_all_the_same(suite: Suite, key: str) -> None:
    request = {"proxyRequest": proxied("add", b"1", key=key), "oneWayCall": False, "awaitAtTheEnd": False}
    assert await suite.call("/Proxy/manyCalls", [request] * 3) is None
    await suite.eventually(path_of("Counter", key, "get"), 3)


# ---------------------------------------------------------------- utilities
async def test_echoes_give_back_text_headers_and_bytes(suite: Suite) -> None:
    assert await suite.call("/TestUtilsService/echo", "a ü") == "a ü"
    assert await suite.call("/TestUtilsService/uppercaseEcho", "a ü") == "A Ü"
    headers = await suite.call("/TestUtilsService/echoHeaders", x_my_custom_header="x-my-custom-value")
    assert headers["x-my-custom-header"] == "x-my-custom-value"
    for content_type in ("application/octet-stream", "image/png", None):
        sent = {} if content_type is None else {"content-type": content_type}
        raw = await suite.ingress.post("/TestUtilsService/rawEcho", content=bytes(range(256)), headers=sent)
        assert (raw.status_code, raw.content) == (200, bytes(range(256)))
        assert raw.headers["content-type"] == "application/octet-stream"


async def test_the_side_effects_of_an_attempt_are_counted(suite: Suite, request: pytest.FixtureRequest) -> None:
    executed = await suite.call("/TestUtilsService/countExecutedSideEffects", 3)
    is_replayed = "nothing-resident" in request.node.name
    assert executed == (0 if is_replayed else 3)


# ---------------------------------------------------------------- awakeables and promises
async def test_a_holder_resolves_the_awakeable_that_it_holds(suite: Suite, key: str) -> None:
    holder = path_of("AwakeableHolder", key, "")
    assert await suite.call(f"{holder}hasAwakeable") is False
    assert (await suite.fail(f"{holder}unlock", "x"))["code"] == 500
    blocked = await suite.send(path_of("CancelTestBlockingService", key, "block"), "AWAKEABLE")
    await suite.eventually(f"{holder}hasAwakeable", True)
    assert await suite.call(f"{holder}unlock", "x") is None
    assert await suite.act(blocked, "kill") == 200
    assert await suite.call(path_of("CancelTestBlockingService", key, "isUnlocked")) is None


async def test_a_workflow_blocks_until_its_promise_is_resolved(suite: Suite, key: str) -> None:
    workflow = path_of("BlockAndWaitWorkflow", key, "")
    target = {"target": "workflow", "workflowName": "BlockAndWaitWorkflow", "workflowKey": key}
    assert (await suite.ask("/restate/output", target)).status_code == 404
    id = await suite.send(f"{workflow}run", "Francesco")
    await suite.eventually(f"{workflow}getState", "Francesco")
    assert (await suite.ask("/restate/output", target)).status_code == 470
    assert await suite.call(f"{workflow}unblock", "Till") is None
    attached = await suite.ask("/restate/attach", target)
    assert (attached.json(), attached.headers["x-restate-id"]) == ("Till", id)
    assert (await suite.ask("/restate/output", target)).json() == "Till"
    again = (await suite.ask(f"{workflow}run/send", "Francesco")).json()
    assert again == {"invocationId": id, "status": "PreviouslyAccepted"}
    assert (await suite.fail(f"{workflow}unblock", "Stephan"))["code"] == 409
    assert await suite.call(f"{workflow}getState") == "Francesco"
    refused = await suite.ask(f"{workflow}run", "Francesco")
    assert refused.status_code == 409


async def test_a_workflow_is_asked_and_unblocked_before_it_runs(suite: Suite, key: str) -> None:
    workflow = path_of("BlockAndWaitWorkflow", key, "")
    answer = await suite.ask(f"{workflow}getState")
    assert (answer.status_code, answer.content) == (200, b"null")
    assert await suite.call(f"{workflow}unblock", "early") is None
    assert await suite.call(f"{workflow}run", "x") == "early"
    keyed = await suite.ask(f"{path_of('BlockAndWaitWorkflow', new_key(), 'run')}", "x", idempotency_key="k")
    assert keyed.status_code == 400


# ---------------------------------------------------------------- cancel and kill
async def blocked(suite: Suite, key: str) -> None:
    """The holder has the awakeable of the one that blocks; release it into the operation that never ends."""
    await suite.eventually(path_of("AwakeableHolder", key, "hasAwakeable"), True)
    assert await suite.call(path_of("AwakeableHolder", key, "unlock"), "cancel") is None


async def verified(suite: Suite, key: str) -> bool:
    """Whether the runner says so; it can say nothing as long as it is busy."""
    try:
        async with asyncio.timeout(SECOND):
            verified: bool = await suite.call(path_of("CancelTestRunner", key, "verifyTest"))
    except TimeoutError:
        return False
    return verified


@pytest.mark.parametrize("operation", ["CALL", "SLEEP", "AWAKEABLE"])
@pytest.mark.parametrize("by", ["admin", "context"])
async def test_a_cancelled_tree_is_told_and_free(suite: Suite, key: str, operation: str, by: str) -> None:
    if by == "admin":
        id = await suite.send(path_of("CancelTestRunner", key, "startTest"), operation)
    else:
        request = proxied("startTest", f'"{operation}"'.encode(), key=key, service="CancelTestRunner")
        id = await suite.call("/Proxy/oneWayCall", request)
    await blocked(suite, key)
    if by == "admin":
        assert await suite.act(id, "cancel") == 202
    else:
        assert await suite.call("/TestUtilsService/cancelInvocation", id) is None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await verified(suite, key):  # Unless the cancel is told, it waits for ever.
            await asyncio.sleep(0.005)
    assert await suite.call(path_of("CancelTestBlockingService", key, "isUnlocked")) is None
    # What a handler sent is known only as long as it runs, or its sender (rule X7).
    assert await suite.act(id, "cancel") in ((409,) if by == "admin" else (404, 409))


async def test_a_runner_takes_a_cancelled_callee_for_its_own_cancel(suite: Suite, key: str) -> None:
    id = await suite.send(path_of("CancelTestRunner", key, "startTest"), "SLEEP")
    await blocked(suite, key)
    done = await suite.admin.post(
        "/internal/invocations_batch_operations/cancel",
        json={"target": path_of("CancelTestBlockingService", key, "block")[1:]},
    )
    assert len(done.json()["succeeded"]) == 1
    assert (await suite.attach(id)).status_code == 200
    assert await suite.call(path_of("CancelTestRunner", key, "verifyTest")) is True


async def test_a_delayed_message_is_taken_back_by_its_id(suite: Suite, key: str) -> None:
    request = proxied("add", b"1", key=key, delayMillis=60_000)
    first, second = [await suite.call("/Proxy/oneWayCall", request) for _ in range(2)]
    assert await suite.act(first, "cancel") == 200
    assert await suite.call("/TestUtilsService/cancelInvocation", second) is None
    async with asyncio.timeout(PATIENCE_SECONDS):
        for id in (first, second):
            while (status := await suite.act(id, "purge")) not in (200, 404):
                assert status == 409
                await asyncio.sleep(0.005)
    assert await suite.call(path_of("Counter", key, "get")) == 0


async def test_a_killed_tree_is_free(suite: Suite, key: str) -> None:
    id = await suite.send(path_of("KillTestRunner", key, "startCallTree"))
    await blocked(suite, key)
    assert await suite.act(id, "kill") == 200
    assert await suite.call(path_of("KillTestSingleton", key, "isUnlocked")) is None
    assert failure(await suite.attach(id))["code"] == 409
    assert [await suite.act(id, verb) for verb in ("kill", "purge", "purge", "kill")] == [409, 200, 404, 404]


# ---------------------------------------------------------------- failures
METADATA = {"key1": "value1", "key2": "value2"}


@pytest.mark.parametrize(
    "handler", ["terminallyFailingCall", "callTerminallyFailingCall", "terminallyFailingSideEffect"]
)
@pytest.mark.parametrize("metadata", [..., None, METADATA])
async def test_a_terminal_error_arrives_with_message_and_metadata(
    suite: Suite, key: str, handler: str, metadata: Any
) -> None:
    given = {"errorMessage": "my error"} | ({} if metadata is ... else {"metadata": metadata})
    expected = {"code": 500, "message": "my error", "source": "invocation"}
    expected |= {"metadata": METADATA} if metadata == METADATA else {}
    for _ in range(2):
        assert await suite.fail(path_of("Failing", key, handler), given) == expected


async def test_what_fails_now_and_then_is_tried_again(suite: Suite, key: str) -> None:
    failing = path_of("Failing", key, "")
    assert [await suite.call(f"{failing}failingCallWithEventualSuccess") for _ in range(2)] == [4, 4]
    assert await suite.call(f"{failing}sideEffectSucceedsAfterGivenAttempts", 3) >= 3


async def test_an_action_is_tried_as_often_as_it_may_be(suite: Suite, key: str) -> None:
    fails = path_of("Failing", key, "sideEffectFailsAfterGivenAttempts")
    before = await suite.call(fails, 1)
    assert await suite.call(fails, 3) == before + 3
    assert await suite.call(fails, 1) == before + 4


@pytest.mark.parametrize(
    "handler",
    ["eitherSleepOrCall", "callDifferentMethod", "backgroundInvokeWithDifferentTargets", "setDifferentKey"],
)
async def test_code_that_does_something_else_on_replay_is_paused_and_can_be_cancelled(
    suite: Suite, key: str, handler: str
) -> None:
    counter, paused = path_of("Counter", key, "get"), path_of("NonDeterministic", key, handler)
    answer = await suite.ask(paused)
    assert (answer.status_code, answer.json()["source"]) == (503, "invocation")
    assert "is paused" in answer.json()["message"]
    assert await suite.call(counter) == 0
    await suite.act(answer.headers["x-restate-id"], "kill")
    assert await suite.call(counter) == 0


# ---------------------------------------------------------------- the interpreter of commands
AWAKEABLES = [{"type": "createAwakeable", "awakeableKey": f"awk{number}"} for number in range(3)]
SIGNALS = [{"type": "createSignal", "signalName": f"sig{number}"} for number in range(3)]
FAILING_RUNS = [{"type": "runThrowTerminalException", "reason": f"run{number}"} for number in range(3)]
RUN = {"type": "runReturns", "value": "runval"}
NAP = {"type": "sleep", "timeoutMillis": 10}


class Interpreter:
    """One of the objects that interpret."""

    def __init__(self, suite: Suite, key: str) -> None:
        self._suite = suite
        self._path = path_of("VirtualObjectCommandInterpreter", key, "")

    async def run(self, *commands: Any) -> Any:
        return await self._suite.call(f"{self._path}interpretCommands", {"commands": commands})

    async def fail(self, *commands: Any) -> str:
        failed = await self._suite.fail(f"{self._path}interpretCommands", {"commands": commands})
        assert failed["code"] == 500
        message: str = failed["message"]
        return message

    async def send(self, *commands: Any) -> str:
        return await self._suite.send(f"{self._path}interpretCommands", {"commands": commands})

    async def ask(self, handler: str, body: Any = ...) -> httpx.Response:
        return await self._suite.ask(f"{self._path}{handler}", body)

    async def resolve(self, key: str, value: str) -> None:
        request = {"type": "resolveAwakeable", "awakeableKey": key, "value": value}
        assert await self._suite.call(f"{self._path}resolveAwakeable", request) is None

    async def reject(self, key: str, reason: str) -> None:
        request = {"type": "rejectAwakeable", "awakeableKey": key, "reason": reason}
        assert await self._suite.call(f"{self._path}rejectAwakeable", request) is None

    async def until_has(self, key: str) -> None:
        await self._suite.eventually(f"{self._path}hasAwakeable", True, key)

    async def results(self) -> Any:
        return await self._suite.call(f"{self._path}getResults")


@pytest.fixture
def interpreter(suite: Suite, key: str) -> Interpreter:
    return Interpreter(suite, key)


async def signal(suite: Suite, id: str, number: int, value: str) -> None:
    request = {"invocationId": id, "signalName": f"sig{number}", "value": value}
    assert await suite.call("/TestUtilsService/resolveSignal", request) is None


async def reject_signal(suite: Suite, id: str, number: int, reason: str) -> None:
    request = {"invocationId": id, "signalName": f"sig{number}", "reason": reason}
    assert await suite.call("/TestUtilsService/rejectSignal", request) is None


async def test_a_program_returns_its_last_result_and_keeps_all(interpreter: Interpreter) -> None:
    assert await interpreter.run() == ""
    assert await interpreter.results() == []
    one = [{"type": "awaitOne", "command": command} for command in (NAP, RUN)]
    path = {"type": "getEnvVariable", "envName": "PATH"}
    nothing = {"type": "getEnvVariable", "envName": "DURABLY_NO_SUCH_VARIABLE"}
    assert await interpreter.run(path) == os.environ["PATH"]
    assert await interpreter.run(nothing) == ""
    assert await interpreter.run(*one) == "runval"
    assert await interpreter.results() == [os.environ["PATH"], "", "sleep", "runval"]
    failed = await interpreter.fail(one[0], {"type": "awaitOne", "command": FAILING_RUNS[0]}, one[1])
    assert failed == "run0"
    assert await interpreter.results() == [os.environ["PATH"], "", "sleep", "runval", "sleep"]


@pytest.mark.parametrize("kind", ["awaitAny", "awaitFirstCompleted"])
async def test_the_first_to_complete_counts_even_if_it_fails(interpreter: Interpreter, kind: str) -> None:
    assert await interpreter.run({"type": kind, "commands": [AWAKEABLES[0], NAP]}) == "sleep"
    assert await interpreter.run({"type": kind, "commands": [SIGNALS[0], RUN]}) == "runval"
    assert await interpreter.fail({"type": kind, "commands": [SIGNALS[0], FAILING_RUNS[1]]}) == "run1"


@pytest.mark.parametrize("kind", ["awaitAnySuccessful", "awaitFirstSucceededOrAllFailed"])
async def test_the_first_to_succeed_counts_unless_all_fail(suite: Suite, interpreter: Interpreter, kind: str) -> None:
    commands = [command for pair in zip(AWAKEABLES, FAILING_RUNS, strict=True) for command in pair]
    id = await interpreter.send({"type": kind, "commands": commands})
    await interpreter.until_has("awk2")
    await interpreter.until_has("awk0")
    await interpreter.reject("awk2", "fail")
    await interpreter.resolve("awk1", "awk1-result")
    assert (await suite.attach(id)).json() == "awk1-result"
    assert "run" in await interpreter.fail({"type": kind, "commands": FAILING_RUNS})


async def test_all_succeed_or_the_first_failure_is_thrown(suite: Suite, interpreter: Interpreter) -> None:
    id = await interpreter.send({"type": "awaitAllSucceededOrFirstFailed", "commands": [RUN, SIGNALS[0], NAP]})
    await signal(suite, id, 0, "sigval")
    assert (await suite.attach(id)).json() == "runval|sigval|sleep"
    failing = {"type": "awaitAllSucceededOrFirstFailed", "commands": [SIGNALS[0], FAILING_RUNS[2], RUN]}
    assert await interpreter.fail(failing) == "run2"


async def test_all_that_completed_stand_in_the_order_of_the_commands(suite: Suite, interpreter: Interpreter) -> None:
    commands = [RUN, *SIGNALS, FAILING_RUNS[0], NAP]
    id = await interpreter.send({"type": "awaitAllCompleted", "commands": commands})
    await signal(suite, id, 2, "val2")
    await reject_signal(suite, id, 1, "err1")
    await signal(suite, id, 0, "val0")
    assert (await suite.attach(id)).json() == "ok:runval|ok:val0|err:err1|ok:val2|err:run0|ok:sleep"


async def test_of_no_commands_all_complete_and_none_is_the_first(suite: Suite, interpreter: Interpreter) -> None:
    for kind in ("awaitAllCompleted", "awaitAllSucceededOrFirstFailed"):
        assert await interpreter.run({"type": kind, "commands": []}) == ""
    for kind in ("awaitAny", "awaitAnySuccessful"):
        refused = await interpreter.ask("interpretCommands", {"commands": [{"type": kind, "commands": []}]})
        assert failure(refused)["code"] == 400


async def test_an_awakeable_has_a_time_limit(suite: Suite, interpreter: Interpreter) -> None:
    command = {"type": "awaitAwakeableOrTimeout", "awakeableKey": "awk", "timeoutMillis": 20}
    assert "await-timeout" in await interpreter.fail(command)
    assert await interpreter.results() == []
    id = await interpreter.send({**command, "awakeableKey": "other", "timeoutMillis": 60_000})
    await interpreter.until_has("other")
    await interpreter.resolve("other", "in time")
    assert (await suite.attach(id)).json() == "in time"
    id = await interpreter.send({**command, "awakeableKey": "third", "timeoutMillis": 60_000})
    await interpreter.until_has("third")
    await interpreter.reject("third", "no")
    assert failure(await suite.attach(id))["message"] == "no"


async def test_a_program_completes_its_own_awakeables(interpreter: Interpreter) -> None:
    resolve = {"type": "resolveAwakeable", "awakeableKey": "awk0", "value": "late"}
    reject = {"type": "rejectAwakeable", "awakeableKey": "awk0", "reason": "late"}
    left = {"type": "awaitAny", "commands": [AWAKEABLES[0], NAP]}
    assert await interpreter.run(left, resolve, reject) == ""
    assert await interpreter.results() == ["sleep", "", ""]
    assert (await interpreter.ask("hasAwakeable", "awk0")).json() is True


async def test_an_awakeable_that_was_never_created_is_a_terminal_error(interpreter: Interpreter) -> None:
    assert (await interpreter.ask("hasAwakeable", "nothing")).json() is False
    resolve = {"type": "resolveAwakeable", "awakeableKey": "nothing", "value": "x"}
    reject = {"type": "rejectAwakeable", "awakeableKey": "nothing", "reason": "x"}
    answers = [await interpreter.ask("resolveAwakeable", resolve), await interpreter.ask("rejectAwakeable", reject)]
    assert [failure(answer)["code"] for answer in answers] == [500, 500]
    assert "awakeable" in await interpreter.fail(resolve)


async def test_an_id_that_is_none_is_refused_where_an_awakeable_is_completed(suite: Suite) -> None:
    for path, body in (("/restate/awakeables/nonsense/resolve", b'"x"'), ("/restate/a/nonsense/reject", b"x")):
        assert (await suite.ingress.post(path, content=body)).status_code == 400


async def test_a_signal_to_an_invocation_that_has_ended_is_told(suite: Suite, interpreter: Interpreter) -> None:
    id = await interpreter.send({"type": "awaitOne", "command": SIGNALS[0]})
    await reject_signal(suite, id, 0, "boom")
    assert failure(await suite.attach(id))["message"] == "boom"
    request = {"invocationId": id, "signalName": "sig0", "value": "x"}
    assert (await suite.fail("/TestUtilsService/resolveSignal", request))["code"] == 409
    unknown = request | {"invocationId": "inv_1" + "0" * 33}
    assert (await suite.fail("/TestUtilsService/resolveSignal", unknown))["code"] == 404


async def test_many_sleeps_at_the_same_time_all_end(suite: Suite) -> None:
    naps = {"type": "awaitAllCompleted", "commands": [{"type": "sleep", "timeoutMillis": 5 + n} for n in range(20)]}
    interpreters = [Interpreter(suite, new_key()) for _ in range(10)]
    results = await asyncio.gather(*(interpreter.run(naps) for interpreter in interpreters))
    assert results == ["|".join(["ok:sleep"] * 20)] * 10


# ---------------------------------------------------------------- the interpreter of programs
def program(*commands: dict[str, Any]) -> Any:
    return {"commands": list(commands)}


def command(kind: int, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, **fields}


async def test_a_program_of_every_command_does_what_it_says(suite: Suite, key: str, number: int) -> None:
    below = program(command(4), command(5), command(9, duration=5), command(18))
    commands = [
        command(1, key=3), command(2, key=3), command(3, key=3), command(2, key=3), command(6, duration=5),
        command(7), command(8, sleep=5), command(10), command(11), command(12), command(13), command(14),
        command(16), command(17), command(15, index=5), command(15, index=12), command(15, index=13),
        command(15, index=0), command(4), command(5), command(9, duration=5), command(18),
        command(19, key=number, program=below),
    ]  # fmt: skip
    assert {one["kind"] for one in commands} == set(Kind)
    assert await suite.call(path_of("ObjectInterpreterL0", key, "interpret"), program(*commands)) is None
    await suite.eventually(path_of("ObjectInterpreterL0", key, "counter"), 4)
    await suite.eventually(path_of("ObjectInterpreterL1", str(number), "counter"), 4)


async def test_the_layers_below_count_for_themselves(suite: Suite, number: int) -> None:
    below = program(command(4), command(5), command(4))
    middle = program(command(4), command(19, key=number, program=below), command(18))
    top = program(command(19, key=number, program=middle), command(19, key=number, program=middle))
    assert await suite.call(path_of("ObjectInterpreterL0", str(number), "interpret"), top) is None
    for layer, expected in enumerate((0, 4, 6)):
        await suite.eventually(path_of(f"ObjectInterpreterL{layer}", str(number), "counter"), expected)


async def test_the_helper_answers_by_itself(suite: Suite, key: str) -> None:
    helper = "/ServiceInterpreterHelper/"
    assert await suite.call(f"{helper}ping") is None
    assert await suite.call(f"{helper}echo", "a") == "a"
    assert await suite.call(f"{helper}echoLater", {"sleep": 5, "parameter": "b"}) == "b"
    assert (await suite.fail(f"{helper}terminalFailure"))["code"] == 500
    assert await suite.call(f"{helper}incrementIndirectly", {"layer": 2, "key": key}) is None
    await suite.eventually(path_of("ObjectInterpreterL2", key, "counter"), 1)
    for handler in ("resolveAwakeable", "rejectAwakeable"):
        assert (await suite.fail(f"{helper}{handler}", "nonsense"))["code"] == 400


async def test_a_program_that_is_none_is_refused(suite: Suite, key: str) -> None:
    handlers = (("ObjectInterpreterL0", "interpret"), ("VirtualObjectCommandInterpreter", "interpretCommands"))
    for service, handler in handlers:
        bodies: list[Any] = [{"commands": [{"kind": 99}]}, {"commands": [{"type": "jump"}]}, [], "x"]
        for body in bodies:
            refused = await suite.ask(path_of(service, key, handler), body)
            assert (refused.status_code, refused.json()["source"]) == (400, "ingress")
