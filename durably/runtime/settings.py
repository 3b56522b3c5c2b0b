"""Every number that the machine runs by, with its unit in its name, in one value."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.headers import Forwarding
from durably.actors.retry import RetryPolicy
from durably.actors.values.slices import SLICE_BYTES

Watch: TypeAlias = Callable[[str], AbstractContextManager[object, None]]
"""Given a handler's name, what is entered around a run of its code; an error that it raises fails the attempt."""

AroundAttempt: TypeAlias = Callable[[Any, RetryPolicy, int, Callable[[Any, int], Awaitable[Any]]], Awaitable[Any]]
"""Makes one attempt of an `Action`, by calling what it is given with the action and the number of the attempt.

The policy is the invocation's, the number that of the runtime's attempt.
"""

TraceHeaders: TypeAlias = Callable[[Any, int, dict[str, str]], dict[str, str]]
"""Given the `InvocationRun` that sends a message, the number of its command, and the headers of the message."""

READY_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `Runtime(...)` turns its arguments into. Times are microseconds unless the name says otherwise."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """For handlers that have no policy of their own."""
    suspend_after_us: int | None = None
    """How long an invocation waits in memory before its attempt is thrown away; 0 at every wait, None: while there is
    room."""
    nothing_resident: bool = False
    """For tests: no attempt survives an await, however soon the answer comes, and no object stays in memory idle."""
    passivate_after_us: int = 300_000_000
    """How long an idle object stays in memory."""
    retention_us: int = 86_400_000_000
    """How long outcomes are kept for those who come later."""
    journal_retention_us: int | None = None
    """How long journals are kept after the end. None: those of keyed invocations and workflows for a day."""
    drain_us: int = 30_000_000
    """How long a stopping runtime lets handlers and actions go on."""
    stop_us: int = 10_000_000
    """How long it may take, after that, to commit the last batch, to end cancelled actions and to let the store go."""
    code_version: str | None = None
    """What the program calls its code. None: each handler has a fingerprint of its own."""
    event_cluster: str = "default"
    """What the streams of published events belong to, where no other is named."""
    event_stream: str = "all"
    """Where what is published without a stream goes."""
    event_retention_us: int = 7 * 86_400_000_000
    """How long published events are kept (rule P4)."""
    event_limit_bytes: int = 1024 * 1024 * 1024
    """Of published events in the store; beyond, those outside publish no more (rule P4)."""
    events_in_flight: int = 1_000
    """How many messages of one subscription wait or run at a time (rule P2)."""
    verify_replay: bool = False
    """Replay every invocation when it ends and pause it if anything differs."""
    deadlocks: Literal["error", "wait"] = "error"
    """Whether invocations that wait for nothing but each other are told so (rules E4, E8)."""
    forwarding: Forwarding | None = None
    """Which headers of an invocation its calls carry on, where its class says nothing."""
    trace_headers: TraceHeaders | None = None
    """Adds the trace to the headers of what a handler calls and sends. None: there is no tracing."""
    forgotten_await: Literal["warn", "error"] = "warn"
    watch: Watch | None = None
    """What looks on while handlers run. None: nothing does."""
    around_attempt: AroundAttempt | None = None
    """What makes the attempts of actions. None: the runtime alone."""
    ready_queue: Callable[[], deque[Any]] = deque
    """Makes what holds the invocations that are ready. A simulation takes them in another order."""
    ready_at_once: int = READY_AT_ONCE
    """So many of them are taken in the order in which they came; beyond, services and classes take turns."""

    waiting_attempts: int = 10_000
    """How many attempts wait in memory; others are replayed when they are woken."""
    waiting_bytes: int = 256 * 1024 * 1024
    """What they may take up together, about: their journals and what their handlers have decoded."""
    active_objects: int = 100_000
    active_bytes: int = 256 * 1024 * 1024
    """What idle objects may take up together, about."""
    mailbox_messages: int = 10_000
    """Waiting messages of one object; beyond them, requests from outside are refused (rule C8)."""
    waiting_messages: int = 1_000_000
    """The same of all mailboxes together, with those that wait for named limits."""
    state_bytes: int = 128 * 1024 * 1024
    """Of one object; what would make it larger is not done."""
    payload_bytes: int = 32 * 1024 * 1024
    slice_bytes: int = SLICE_BYTES
    """What is larger is decoded in slices of about this size, with a turn of the loop between two."""
    replayed_at_once: int = 200
    """How many steps of a journal are replayed in one turn of the loop: a few milliseconds."""
    pending_in_memory: int = 1_000
    """How much of a stored mailbox is loaded at once."""
    timer_window_us: int = 60_000_000
    """Timers due later than this from now need not be in memory (rule T2)."""
    timers_in_memory: int = 1_000
    """While there are fewer, later ones are in memory too, and their waits are measured like those of the others."""
    sweep_us: int = 1_000_000
    """How often, at most, idle and waiting things are looked over."""
    pump_budget_us: int = 5_000
    """How long the machine works before it lets the host's other callbacks run."""
    gates_at_once: int = 256
    """How many replies and starts of side effects go out in one turn of the loop, at least."""
    gate_turns: int = 4
    """Over so many turns of the loop goes out what became durable together, if it is more than that."""
    batch_limit_transitions: int = 20_000
    batch_limit_bytes: int = 8 * 1024 * 1024
    batch_limit_us: int = 100_000
    undurable_limit_bytes: int = 64 * 1024 * 1024
    """How much may be ahead of the disk before nothing new is admitted or advanced (rule X2)."""
    give_way_us: int | None = 2_000
    """How long a busy loop may starve the threads that wait for it (rule X8). None: there are no such threads."""
    verify_every_us: int | None = 500_000
    """How often an idle runtime asks whether its store is still there and its own (rule X9). None: never by itself."""
    long_journal_steps: int = 8_192
    """From so many steps on, a warning says that an invocation should continue as new; again at each doubling."""
    large_changes_bytes: int = 16 * 1024 * 1024
    """From so many bytes of changed fields on in one journal, a warning names the field; again at each doubling."""
    advance_limit_callbacks: int = 100_000
    slow_advance_us: int = 100_000
    """From here on, one advance is told of when it has ended, with its stack."""
    blocked_advance_us: int | None = 1_000_000
    """From here on, one is told of while it goes on. None: no thread looks, and what is slow has no stack."""
    limit_pools_kept: int = 1_024
    """Unused pools of limit keys are dropped when there are so many pools, and again at each doubling."""
    long_mailbox_percent: int = 50
    """From this share of its limit on, a warning names the object whose messages wait; again at each doubling."""
    slow_collection_us: int | None = 20_000
    """How long a full garbage collection may take while many requests wait, before it is told once. None: any time."""
    host_error_pause_us: int = 1_000_000
    """How long an invocation rests whose attempt raised what is the host's business (rule E3)."""
    recovery_portion: int = 1_000
    expiry_portion: int = 1_000
    expiry_portion_steps: int = 10_000
    """How many steps of kept journals are removed in one batch, and at least one journal."""
    expire_every_us: int = 60_000_000
    """How often, at most, what need not be kept any longer is looked for."""
    action_threads: int = 32
    """How many plain functions `ctx.run` runs at a time."""
    action_thread_wait_us: int = 5_000_000
    """How long an action waits for a thread before a warning says so."""
    reopen_first_us: int = 50_000
    reopen_last_us: int = 5_000_000
    outcome_unknown_after_us: int = 10_000_000
    """How long callers wait for a failed store to come back before they are told that the outcome is unknown."""

    def retry_policy(self, handler: BoundActorHandler) -> RetryPolicy:
        """How invocations of a handler are tried again."""
        return self.retry if handler.retry is None else handler.retry
