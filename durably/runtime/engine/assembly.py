"""Puts the parts of one incarnation together. Each part is given the parts that it uses, in an order that allows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durably.actors.definition.binding import BoundActor
from durably.actors.protocol.coding import CodingMeter
from durably.actors.protocol.commands import (
    Attach,
    AwaitSignal,
    Call,
    Cancel,
    Command,
    CompleteAwakeable,
    CompletePromise,
    GetOutput,
    GetPromise,
    GetStatus,
    IdentifyCall,
    MakeAwakeable,
    PeekPromise,
    Run,
    Send,
    SendSignal,
    Sleep,
)
from durably.ids import Address, Entropy
from durably.runtime.actions.actions import Actions
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.activations.passivation import Passivation
from durably.runtime.clock import Clock
from durably.runtime.commands.cancel_commands import CancelCommands
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commands.message_commands import CallCommands, SendCommands
from durably.runtime.commands.promise_commands import (
    CompletePromiseCommands,
    GetPromiseCommands,
    PeekPromiseCommands,
)
from durably.runtime.commands.question_commands import (
    AttachCommands,
    GetOutputCommands,
    GetStatusCommands,
    IdentifyCallCommands,
)
from durably.runtime.commands.run_commands import RunCommands
from durably.runtime.commands.signal_commands import (
    AwaitSignalCommands,
    CompleteAwakeableCommands,
    MakeAwakeableCommands,
    SendSignalCommands,
)
from durably.runtime.commands.sleep_commands import SleepCommands
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.engine.pump import Pump
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.incarnation.sliced_work import SlicedWork
from durably.runtime.invocations.activation import Activation
from durably.runtime.lifecycle.action_endings import ActionEndings
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.continuations import Continuations
from durably.runtime.lifecycle.deadlines import Deadlines
from durably.runtime.lifecycle.deadlocks import Deadlocks
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.obedience import Obedience
from durably.runtime.lifecycle.pause_notices import PauseNotices
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.reach import Reach
from durably.runtime.lifecycle.recovery import Recovery
from durably.runtime.lifecycle.retention import Retention
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.lifecycle.timer_dispatch import TimerDispatch
from durably.runtime.lifecycle.wait_graph import WaitGraph
from durably.runtime.lifecycle.workflow_retention import WorkflowRetention
from durably.runtime.messaging.acceptance import Acceptance
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import Messages
from durably.runtime.messaging.orders import Orders
from durably.runtime.messaging.promises import Promises
from durably.runtime.messaging.signals import Signals
from durably.runtime.messaging.targets import Targets
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.waiters import Waiters
from durably.runtime.settings import Settings
from durably.runtime.steps.preparation import Preparation
from durably.runtime.steps.steps import Steps
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an incarnation finds: the runtime's own things, which outlive it, and its open store."""

    actions: Actions
    actors: Mapping[str, BoundActor]
    clock: Clock
    entropy: Entropy
    last_position: int
    """Of the log, as the store had it when it was opened."""
    observer: Observer
    settings: Settings
    store: Store
    thread_yielding: ThreadYielding
    poisoned: str = ""
    """The id of an invocation at which the machine failed twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that others use: the engine for its life, the gateway for requests, tests to look inside."""

    acceptance: Acceptance
    activations: Activations
    background: Background
    cancellation: Cancellation
    committer: Committer
    continuations: Continuations
    idleness: Idleness
    pause_search: PauseSearch
    pauses: Pauses
    reach: Reach
    ready: ReadyQueue
    recovery: Recovery
    registry: InvocationRegistry
    retention: Retention
    scheduled: ScheduledMessages
    signals: Signals
    passivation: Passivation
    sliced_work: SlicedWork
    targets: Targets
    timers: TimerService
    wait_graph: WaitGraph
    waiters: Waiters
    workflows: WorkflowRetention


def assemble(incarnation: Incarnation, around: Surroundings) -> Parts:
    """One machine, not started."""
    actors, clock, observer, settings, store = (
        around.actors, around.clock, around.observer, around.settings, around.store
    )  # fmt: skip
    by_address: dict[Address, Activation] = {}
    ready = ReadyQueue(around.settings.ready_queue())
    idleness = Idleness(incarnation, lambda: around.actions.busy)
    background = Background(incarnation, idleness)
    committer = Committer(
        incarnation,
        clock=clock,
        idleness=idleness,
        last_position=around.last_position,
        observer=observer,
        ready=ready,
        settings=settings,
        store=store,
        thread_yielding=around.thread_yielding,
    )
    reads = Reads(store, around.thread_yielding, settings.pending_in_memory)
    waiters = Waiters()
    registry = InvocationRegistry(
        incarnation, clock=clock, committer=committer, idleness=idleness, reads=reads, ready=ready
    )
    timers = TimerService(
        incarnation,
        background=background,
        clock=clock,
        committer=committer,
        ready=ready,
        settings=settings,
        store=store,
    )
    scheduled = ScheduledMessages(
        incarnation, committer=committer, idleness=idleness, reads=reads, ready=ready, registry=registry
    )
    passivation = Passivation(
        by_address, clock=clock, committer=committer, observer=observer, registry=registry, settings=settings
    )
    coding = CodingMeter(clock.monotonic)
    attempts = Attempts(
        coding=coding,
        committer=committer,
        observer=observer,
        passivation=passivation,
        ready=ready,
        settings=settings,
    )
    activations = Activations(
        by_address,
        incarnation,
        actors=actors,
        attempts=attempts,
        committer=committer,
        idleness=idleness,
        passivation=passivation,
        reads=reads,
        ready=ready,
        registry=registry,
        settings=settings,
    )
    completions = Completions(activations=activations, attempts=attempts)
    attachments = Attachments(
        activations=activations,
        attempts=attempts,
        committer=committer,
        completions=completions,
        registry=registry,
        scheduled=scheduled,
        waiters=waiters,
    )
    signals = Signals(
        activations=activations,
        committer=committer,
        completions=completions,
        registry=registry,
        scheduled=scheduled,
    )
    activations.on_signalled = signals.settle
    targets = Targets(actors, settings)
    acceptance = Acceptance(
        activations=activations,
        clock=clock,
        committer=committer,
        observer=observer,
        registry=registry,
        scheduled=scheduled,
        timers=timers,
    )
    messages = Messages(
        acceptance=acceptance,
        attachments=attachments,
        completions=completions,
        entropy=around.entropy,
        observer=observer,
        registry=registry,
        settings=settings,
        targets=targets,
    )
    pause_search = PauseSearch(activations=activations, committer=committer, registry=registry, scheduled=scheduled)
    notices = PauseNotices(
        activations=activations,
        committer=committer,
        pause_search=pause_search,
        registry=registry,
        waiters=waiters,
    )
    activations.on_queued.append(notices.message_queued)
    attachments.on_attached.append(notices.attached)
    pauses = Pauses(
        activations=activations,
        committer=committer,
        notices=notices,
        observer=observer,
        ready=ready,
        timers=timers,
    )
    attachments.on_unreadable = pauses.pause_asker
    action_endings = ActionEndings(
        incarnation,
        actions=around.actions,
        committer=committer,
        completions=completions,
        observer=observer,
        pauses=pauses,
        ready=ready,
        registry=registry,
    )
    promises = Promises(clock=clock, committer=committer, completions=completions, targets=targets)
    activations.on_loaded.append(promises.look_at_loaded)
    orders = Orders(registry=registry)
    commands: dict[type[Command], CommandKind[Any]] = {
        Attach: AttachCommands(attachments),
        AwaitSignal: AwaitSignalCommands(signals),
        Call: CallCommands(messages),
        Cancel: CancelCommands(orders),
        CompleteAwakeable: CompleteAwakeableCommands(signals, registry),
        CompletePromise: CompletePromiseCommands(promises, completions, observer),
        GetOutput: GetOutputCommands(attachments),
        GetPromise: GetPromiseCommands(promises, completions),
        GetStatus: GetStatusCommands(attachments),
        IdentifyCall: IdentifyCallCommands(attachments),
        MakeAwakeable: MakeAwakeableCommands(signals),
        PeekPromise: PeekPromiseCommands(promises, completions),
        Run: RunCommands(
            incarnation, actions=around.actions, committer=committer, listener=action_endings, settings=settings
        ),
        Send: SendCommands(messages, completions),
        SendSignal: SendSignalCommands(signals, completions, observer, registry),
        Sleep: SleepCommands(timers),
    }
    endings = Endings(
        activations=activations,
        attachments=attachments,
        clock=clock,
        commands=commands,
        committer=committer,
        observer=observer,
        orders=orders,
        passivation=passivation,
        registry=registry,
        targets=targets,
        timers=timers,
    )
    workflow_retention = WorkflowRetention(
        incarnation,
        activations=activations,
        clock=clock,
        committer=committer,
        promises=promises,
        ready=ready,
        registry=registry,
        settings=settings,
    )
    registry.on_workflow_expired = workflow_retention.expire
    activations.on_loaded.append(workflow_retention.look_at_loaded)
    endings.on_left = workflow_retention.handler_has_ended
    continuations = Continuations(
        committer=committer,
        endings=endings,
        entropy=around.entropy,
        observer=observer,
        ready=ready,
        registry=registry,
        signals=signals,
        timers=timers,
        waiters=waiters,
    )
    retries = Retries(
        clock=clock,
        committer=committer,
        endings=endings,
        observer=observer,
        pauses=pauses,
        ready=ready,
        settings=settings,
        timers=timers,
    )
    reach = Reach(activations=activations, registry=registry, scheduled=scheduled, timers=timers)
    cancellation = Cancellation(
        attempts=attempts,
        completions=completions,
        endings=endings,
        observer=observer,
        reach=reach,
        ready=ready,
        timers=timers,
        waiters=waiters,
    )
    obedience = Obedience(cancellation=cancellation, committer=committer, reach=reach, ready=ready)
    orders.carry_out = cancellation.carry_out
    orders.look_up = obedience.look_up
    deadlines = Deadlines(
        attachments=attachments,
        cancellation=cancellation,
        clock=clock,
        committer=committer,
        endings=endings,
        reach=reach,
        ready=ready,
    )
    timers.on_due = TimerDispatch(
        acceptance=acceptance,
        activations=activations,
        actors=actors,
        committer=committer,
        completions=completions,
        deadlines=deadlines,
        observer=observer,
        retries=retries,
        scheduled=scheduled,
    ).time_has_come
    wait_graph = WaitGraph(activations=activations, registry=registry)
    deadlocks = Deadlocks(
        incarnation,
        activations=activations,
        committer=committer,
        completions=completions,
        endings=endings,
        graph=wait_graph,
        idleness=idleness,
        observer=observer,
        passivation=passivation,
        reach=reach,
        settings=settings,
        waiters=waiters,
    )
    activations.on_queued.append(deadlocks.message_queued)
    attachments.on_attached.append(deadlocks.attached)
    sliced_work = SlicedWork(incarnation.fail, idleness.changed)
    idleness.add(sliced_work.is_idle)
    preparation = Preparation(
        attempts=attempts,
        clock=clock,
        commands=commands,
        deadlines=deadlines,
        observer=observer,
        pauses=pauses,
        ready=ready,
        registry=registry,
        retries=retries,
        settings=settings,
        sliced_work=sliced_work,
    )
    steps = Steps(
        attempts=attempts,
        clock=clock,
        commands=commands,
        committer=committer,
        continuations=continuations,
        deadlines=deadlines,
        deadlocks=deadlocks,
        endings=endings,
        observer=observer,
        orders=orders,
        pauses=pauses,
        preparation=preparation,
        registry=registry,
        retries=retries,
        settings=settings,
        signals=signals,
        targets=targets,
    )
    Pump(
        incarnation,
        clock=clock,
        coding=coding,
        committer=committer,
        idleness=idleness,
        observer=observer,
        poisoned=around.poisoned,
        ready=ready,
        registry=registry,
        settings=settings,
        steps=steps,
    )
    return Parts(
        acceptance=acceptance,
        activations=activations,
        background=background,
        cancellation=cancellation,
        committer=committer,
        continuations=continuations,
        idleness=idleness,
        passivation=passivation,
        pause_search=pause_search,
        pauses=pauses,
        reach=reach,
        ready=ready,
        recovery=Recovery(
            incarnation,
            activations=activations,
            actors=actors,
            background=background,
            deadlocks=deadlocks,
            last_position=around.last_position,
            obedience=obedience,
            observer=observer,
            settings=settings,
            store=store,
        ),
        registry=registry,
        retention=Retention(
            incarnation,
            actors=actors,
            background=background,
            clock=clock,
            committer=committer,
            ready=ready,
            registry=registry,
            settings=settings,
            store=store,
            workflows=workflow_retention,
        ),
        scheduled=scheduled,
        signals=signals,
        sliced_work=sliced_work,
        targets=targets,
        timers=timers,
        wait_graph=wait_graph,
        waiters=waiters,
        workflows=workflow_retention,
    )
