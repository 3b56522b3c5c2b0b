"""What travels between durably and Restate: failures, headers and deadlines, without a server."""

from __future__ import annotations

import restate

from durably import CancelledInvocationError, TerminalError
from durably.actors.headers import Forwarding
from durably.actors.protocol.commands import Call, Send
from durably.actors.values.error_envelopes import decode_failure, encode_failure
from durably.restate.failures import from_restate, is_typed, to_restate
from durably.restate.headers import DEADLINE, OutgoingHeaders, deadline_of, incoming_headers

NOW = 1_000_000


class SoldOutError(TerminalError):
    code = 410
    seat: str = ""


def test_a_failure_travels_with_its_class_and_its_fields() -> None:
    error = SoldOutError("none left")
    error.seat = "2B"
    travelling = to_restate(encode_failure(error))
    assert (travelling.message, travelling.status_code) == ("none left", 410)
    assert is_typed(travelling)
    back = decode_failure(from_restate(travelling))
    assert isinstance(back, SoldOutError)
    assert back.seat == "2B"


def test_a_failure_of_others_keeps_code_message_and_metadata() -> None:
    given = restate.TerminalError("no", status_code=422, metadata={"why": "so"})
    back = decode_failure(from_restate(given))
    assert not is_typed(given)
    assert (type(back), back.code, back.message, dict(back.metadata)) == (TerminalError, 422, "no", {"why": "so"})


def test_what_restate_has_ended_was_cancelled() -> None:
    for text in ("cancelled", "Canceled", "killed"):
        assert isinstance(
            decode_failure(from_restate(restate.TerminalError(text, status_code=409))), CancelledInvocationError
        )
    assert type(decode_failure(from_restate(restate.TerminalError("taken", status_code=409)))) is TerminalError


def _call(timeout_us: int | None = None, *, has_all_headers: bool = False) -> Call:
    return Call("Cart", "mary", "add", b"", {"own": "1\n2"}, None, timeout_us, True, has_all_headers)


def test_calls_carry_on_what_is_forwarded_and_the_earlier_deadline() -> None:
    headers = OutgoingHeaders({"tenant": "north", "other": "x"}, Forwarding(frozenset({"tenant"})), NOW + 50)
    assert headers.of(_call(), NOW, inherits=True) == {"tenant": "north", "own": "1, 2", DEADLINE: str(NOW + 50)}
    assert headers.of(_call(10), NOW, inherits=True)[DEADLINE] == str(NOW + 10)
    assert headers.of(_call(90), NOW, inherits=True)[DEADLINE] == str(NOW + 50)
    assert DEADLINE not in headers.of(_call(), NOW, inherits=False)
    assert "tenant" not in headers.of(_call(has_all_headers=True), NOW, inherits=True)


def test_sends_carry_their_own_headers_and_limit_only() -> None:
    headers = OutgoingHeaders({"tenant": "north"}, Forwarding(None), NOW + 50)
    sent = Send("Cart", "mary", "add", b"", {}, None, 20, NOW + 100, True)
    assert headers.of(sent, NOW + 100, inherits=False) == {DEADLINE: str(NOW + 120)}
    assert headers.of(Send("Cart", "mary", "add", b"", {}, None, None, None), NOW, inherits=True) == {}


def test_a_deadline_is_the_earliest_that_anything_says() -> None:
    def now() -> int:
        return NOW

    def never() -> int:
        raise AssertionError("nothing counts from now on")

    assert deadline_of({}, None, never) is None
    assert deadline_of({"X-Durably-Deadline": "5"}, None, never) == 5
    assert deadline_of({}, 30, now) == NOW + 30
    assert deadline_of({"x-durably-timeout": "20us", DEADLINE: str(NOW + 25)}, 30, now) == NOW + 20
    assert deadline_of({"x-durably-timeout": "soon", DEADLINE: "later"}, None, now) is None


def test_headers_of_the_connection_are_kept_from_handlers() -> None:
    given = {"Host": "x", "Tenant": "north", "idempotency-key": "k", DEADLINE: "5"}
    assert incoming_headers(given) == {"tenant": "north"}
