"""`Messages`: requests on their way to a mailbox, from handlers and from outside.

A message is checked before it is accepted, and accepted in the transition of the handler that sent it or in one of its
own. A duplicate joins the first with its idempotency key, in any phase of that one (rule C7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from durably.actors.protocol.commands import Call, Command, CompleteAwakeable, Send, SendAnswer, SendSignal
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import AlreadyStartedError, CodecError, TerminalError, UnencodableError
from durably.ids import Entropy, KeyScope, derived_invocation_id, new_seed, parse_awakeable_id
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.refused_sends import RefusedSends
from durably.runtime.messaging.targets import Targets
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import CallerRecord, InvocationRecord

KeysFound: TypeAlias = Mapping[KeyScope | str, Found]
"""What is known of the idempotency keys, and of the ids of other invocations, that a step uses."""

NO_KEYS: KeysFound = {}


class Messages:
    """Sends what handlers send."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        attachments: Attachments,
        completions: Completions,
        entropy: Entropy,
        named_limits: NamedLimits,
        payloads: PayloadCheck,
        refused: RefusedSends,
        registry: InvocationRegistry,
        settings: Settings,
        targets: Targets,
    ) -> None:
        self._payloads = payloads
        self._acceptance = acceptance
        self._attachments = attachments
        self._completions = completions
        self._entropy = entropy
        self._named_limits = named_limits
        self._forwarding = settings.forwarding
        self._refused = refused
        self._registry = registry
        self._targets = targets
        self._trace_headers = settings.trace_headers

    def send(
        self,
        transition: Transition,
        sender: InvocationRun,
        number: int,
        command: Call | Send,
        found: KeysFound,
        *,
        is_awaited: bool,
    ) -> SendAnswer:
        """Accept a message from a handler, in its transition, and return the id of the invocation that has it.

        A refusal is the answer of a call that is awaited; otherwise it is the outcome of what has the id.
        """
        id = derived_invocation_id(sender.id, sender.seed, number, command.service, command.key)
        caller = CallerRecord(sender.address, sender.number, number) if is_awaited else None
        try:
            handler = self._targets.find(command.service, command.key, command.handler)
            scope = self._targets.scope(handler, command.key, command.idempotency_key)
            argument = command.argument
            if command.wire:
                argument = handler.admit(argument)
                self._payloads.message(command, argument)
        except (TerminalError, UnencodableError, CodecError) as failure:
            error = failure if isinstance(failure, TerminalError) else TerminalError(str(failure))
            if caller is not None:
                self._completions.answer(transition, caller, Outcome(True, encode_failure(error)))
            else:
                self._refused.keep(transition, sender, id, command, error)
            return SendAnswer(id, False)
        first = None if scope is None else self._first(scope, found)
        if first is not None and scope is not None:
            is_refused = scope.is_workflow_id and isinstance(command, Call)
            self._join(transition, id, first, None if is_refused else caller)
            if is_refused:
                self._refuse_second_start(transition, first, caller)
            return SendAnswer(first.id, True)
        message = Message(
            handler,
            command.key,
            argument,
            id,
            new_seed(self._entropy),
            self._headers(sender, number, command),
            command.timeout_us,
            scope,
            command.due if isinstance(command, Send) else None,
            None if scope is None else self._targets.retention_us(handler),
            caller,
            sender.id if caller is None else None,
            0 if sender.journal is None else sender.journal.not_before,
            sender.deadline if isinstance(command, Call) and _inherits(sender) else None,  # Rule E7
        )
        transition.next_position()
        invocation = self._acceptance.accept(transition, message)
        if caller is not None and self._named_limits.is_used:
            self._named_limits.inherit(transition, sender, invocation)
        return SendAnswer(id, False)

    def _headers(self, sender: InvocationRun, number: int, command: Call | Send) -> dict[str, str]:
        """Those of a call, with what the caller's class or the runtime forwards. A send carries its own only.

        They are added here, not in the command: the journal holds when the setting changes.
        """
        headers = command.headers
        if sender.headers and isinstance(command, Call) and not command.has_all_headers:
            forwarding = sender.handler.forwarding or self._forwarding
            if forwarding is not None:
                headers = forwarding.add(sender.headers, headers)
        return headers if self._trace_headers is None else self._trace_headers(sender, number, headers)

    def _first(self, scope: KeyScope, found: KeysFound) -> Found:
        """The invocation that has this scope already, if there is one."""
        live, known = self._registry.in_memory(scope), found.get(scope)
        assert not isinstance(known, InvocationRun)  # Of a key that is in memory, nothing is looked up.
        return self._registry.stored(known) if live is None else live

    def _join(
        self, transition: Transition, id: str, first: InvocationRun | InvocationRecord, caller: CallerRecord | None
    ) -> None:
        """Let a duplicate join the first; its own id leads there too (rule C7)."""
        transition.alias(id, first.number)
        self._registry.alias(id, first)
        if caller is not None:
            self._attachments.attach(transition, caller, first)

    def _refuse_second_start(
        self, transition: Transition, first: InvocationRun | InvocationRecord, caller: CallerRecord | None
    ) -> None:
        if caller is not None:
            self._completions.answer(transition, caller, Outcome(True, encode_failure(already_started(first))))


def already_started(first: InvocationRun | InvocationRecord) -> AlreadyStartedError:
    """What the second caller of a workflow's `run` hears."""
    service, id = first.address
    return AlreadyStartedError(
        f"the workflow method was already invoked: {service}/{id} has been started, and its run executes once. "
        "Attach to it to wait for its result, or ask for its output."
    )


def id_named(command: Command) -> str | None:
    """The id of the invocation that a one-way command is about."""
    match command:
        case CompleteAwakeable():
            awakeable = parse_awakeable_id(command.id)
            return None if awakeable is None else awakeable.invocation_id
        case SendSignal():
            return command.invocation_id
        case _:
            return None


def _inherits(sender: InvocationRun) -> bool:
    """Its calls are to end by its deadline; not those that undo, which have to be carried out whenever that is."""
    execution = sender.execution
    return sender.fixed is None and (execution is None or not execution.compensating)
