"""`Messages`: requests on their way to a mailbox, from handlers and from outside.

A message is checked before it is accepted, and accepted in the transition of the handler that sent it or in one of its
own. A duplicate joins the first with its idempotency key, in whatever phase that is (rule C7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from durably.actors.protocol.commands import Call, Command, CompleteAwakeable, Send, SendAnswer, SendSignal
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import AlreadyStartedError, TerminalError
from durably.ids import Entropy, KeyScope, derived_invocation_id, new_seed, parse_awakeable_id
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.targets import Targets
from durably.runtime.observation.observer import Observer
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
        observer: Observer,
        registry: InvocationRegistry,
        settings: Settings,
        targets: Targets,
    ) -> None:
        self._acceptance = acceptance
        self._attachments = attachments
        self._completions = completions
        self._entropy = entropy
        self._forwarding = settings.forwarding
        self._observer = observer
        self._registry = registry
        self._targets = targets

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

        A refusal is the answer of a call that is awaited; otherwise it is told, and the id leads nowhere.
        """
        id = derived_invocation_id(sender.id, sender.seed, number, command.service, command.key)
        caller = CallerRecord(sender.address, sender.number, number) if is_awaited else None
        try:
            handler = self._targets.find(command.service, command.key, command.handler)
            scope = self._targets.scope(handler, command.key, command.idempotency_key)
            argument = handler.admit(command.argument) if command.wire else command.argument
        except TerminalError as error:
            if caller is not None:
                self._completions.answer(transition, caller, Outcome(True, encode_failure(error)))
            else:
                self._observer.undeliverable(sender, command, error)
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
            self._headers(sender, command),
            command.timeout_us,
            scope,
            command.due if isinstance(command, Send) else None,
            None if scope is None else self._targets.retention_us(handler),
            caller,
            sender.id if caller is None else None,
            0 if sender.journal is None else sender.journal.not_before,
            sender.deadline if isinstance(command, Call) and sender.fixed is None else None,  # Rule E7
        )
        transition.next_position()
        self._acceptance.accept(transition, message)
        return SendAnswer(id, False)

    def _headers(self, sender: InvocationRun, command: Call | Send) -> dict[str, str]:
        """Those of a call, with what the caller's class or the runtime forwards. A send carries its own only.

        They are added here, not in the command: the journal holds when the setting changes.
        """
        if not sender.headers or not isinstance(command, Call) or command.has_all_headers:
            return command.headers
        forwarding = sender.handler.forwarding or self._forwarding
        return command.headers if forwarding is None else forwarding.add(sender.headers, command.headers)

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
        f"the workflow method was already invoked: {service}/{id} has been started, and its run executes once. Wait "
        "for its result with run.attach(), or look with run.output()."
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
