"""Puts the parts of one incarnation together. Each part is given the parts that it uses, in an order that allows it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.protocol.coding import CodingMeter
from durably.actors.protocol.commands import (
    Attach,
    AwaitResume,
    AwaitSignal,
    Call,
    Cancel,
    Command,
    CompleteAwakeable,
    CompletePromise,
    FindObjects,
    GetOutput,
    GetPromise,
    GetStatus,
    IdentifyCall,
    IdentifyRun,
    MakeAwakeable,
    PeekPromise,
    Publish,
    ReadEntries,
    ReadEvents,
    ReadListRange,
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
from durably.runtime.commands.entry_commands import EntryAnswers, ReadEntriesCommands, ReadListRangeCommands
from durably.runtime.commands.event_commands import PublishCommands
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
    IdentifyRunCommands,
)
from durably.runtime.commands.resume_commands import AwaitResumeCommands
from durably.runtime.commands.run_commands import RunCommands
from durably.runtime.commands.signal_commands import (
    AwaitSignalCommands,
    CompleteAwakeableCommands,
    MakeAwakeableCommands,
    SendSignalCommands,
)
from durably.runtime.commands.sleep_commands import SleepCommands
from durably.runtime.commands.store_question_commands import StoreQuestionCommands
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.state_size import StateSize
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.dependencies.made_dependencies import MadeDependencies
from durably.runtime.engine.pump import Pump
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.incarnation.sliced_work import SlicedWork
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.code_versions import CodeVersions
from durably.runtime.lifecycle.action_endings import ActionEndings
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.continuations import Continuations
from durably.runtime.lifecycle.dead_letters import DeadLetters
from durably.runtime.lifecycle.deadlines import Deadlines
from durably.runtime.lifecycle.deadlocks import Deadlocks
from durably.runtime.lifecycle.emptying import Emptying
from durably.runtime.lifecycle.ended_journals import EndedJournals
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.event_retention import EventRetention
from durably.runtime.lifecycle.kept_journals import KeptJournals
from durably.runtime.lifecycle.obedience import Obedience
from durably.runtime.lifecycle.object_deletion import ObjectDeletion, ObjectExpiry
from durably.runtime.lifecycle.pause_notices import PauseNotices
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.reach import Reach
from durably.runtime.lifecycle.recovery import Recovery
from durably.runtime.lifecycle.restarts_as_new import RestartsAsNew
from durably.runtime.lifecycle.retention import Retention
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.lifecycle.schedules import Schedules
from durably.runtime.lifecycle.sources import Sources
from durably.runtime.lifecycle.state_edits import StateEdits
from durably.runtime.lifecycle.state_migrations import StateMigrations
from durably.runtime.lifecycle.subscriptions import Subscriptions
from durably.runtime.lifecycle.timer_dispatch import TimerDispatch
from durably.runtime.lifecycle.wait_graph import WaitGraph
from durably.runtime.lifecycle.workflow_retention import WorkflowRetention
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.messaging.acceptance import Acceptance
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.event_feeds import EventFeeds
from durably.runtime.messaging.events import Events
from durably.runtime.messaging.messages import Messages
from durably.runtime.messaging.orders import Orders
from durably.runtime.messaging.promises import Promises
from durably.runtime.messaging.refused_sends import RefusedSends
from durably.runtime.messaging.signals import Signals
from durably.runtime.messaging.targets import Targets
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.entry_reads import EntryReads
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.store_questions import StoreQuestions
from durably.runtime.registry.waiters import Waiters
from durably.runtime.settings import Settings
from durably.runtime.steps.preparation import Preparation
from durably.runtime.steps.rereading import Rereading
from durably.runtime.steps.setting_up import SettingUp
from durably.runtime.steps.steps import Steps
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.sources import Feed
from durably.storage.records import OpenMessages, PlaceRecord
from durably.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an incarnation finds: the runtime's own things, which outlive it, and its open store."""

    actions: Actions
    actors: Mapping[str, BoundActor]
    clock: Clock
    entropy: Entropy
    feeds: EventFeeds
    last_position: int
    """Of the log, as the store had it when it was opened."""
    made: MadeDependencies
    observer: Observer
    settings: Settings
    store: Store
    thread_yielding: ThreadYielding
    sources: Sequence[tuple[Feed, BoundActorHandler]] = ()
    """What is read outside, and who gets it."""
    subscriptions: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """What the store keeps of subscriptions."""
    shortened: Collection[str] = ()
    """Streams of which the store has forgotten events, as far as subscriptions may begin there."""
    left: Mapping[BoundActorHandler, Sequence[OpenMessages]] = field(
        default_factory=dict[BoundActorHandler, Sequence[OpenMessages]]
    )
    """Of the handlers of subscriptions and sources, the messages that have not ended."""
    has_events: bool = False
    """The store has published events."""
    has_schedules: bool = False
    """The store knows schedules."""
    places: Sequence[PlaceRecord] = ()
    """Who holds places of limits, as the store had it when it was opened."""
    failure: BaseException | None = None
    """What the incarnation before it ended with."""
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
    ended_journals: EndedJournals
    entry_reads: EntryReads
    event_retention: EventRetention
    idleness: Idleness
    object_deletion: ObjectDeletion
    state_edits: StateEdits
    named_limits: NamedLimits
    pause_search: PauseSearch
    pauses: Pauses
    payloads: PayloadCheck
    reach: Reach
    ready: ReadyQueue
    recovery: Recovery
    registry: InvocationRegistry
    restarts_as_new: RestartsAsNew
    retention: Retention
    scheduled: ScheduledMessages
    schedules: Schedules
    sources: Sources
    store_questions: StoreQuestions
    subscriptions: Subscriptions
    setting_up: SettingUp
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
    ready = ReadyQueue(around.settings.ready_queue(), most=around.settings.ready_at_once)
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
    payloads = PayloadCheck(store)
    sliced_work = SlicedWork(incarnation.fail, idleness.changed)
    idleness.add(sliced_work.is_idle)
    versions = CodeVersions(settings.code_version)
    named_limits = NamedLimits(
        incarnation,
        clock=clock,
        committer=committer,
        is_used=bool(around.places) or any(one.limit for actor in actors.values() for one in actor.handlers.values()),
        observer=observer,
        ready=ready,
        settings=settings,
        sliced_work=sliced_work,
    )
    named_limits.restore(around.places)
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
        by_address,
        clock=clock,
        committer=committer,
        made=around.made,
        observer=observer,
        registry=registry,
        settings=settings,
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
        observer=observer,
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
        named_limits=named_limits,
        payloads=payloads,
        refused=RefusedSends(
            clock=clock,
            committer=committer,
            entropy=around.entropy,
            observer=observer,
            payloads=payloads,
            registry=registry,
            settings=settings,
        ),
        registry=registry,
        settings=settings,
        targets=targets,
    )
    pause_search = PauseSearch(
        activations=activations,
        committer=committer,
        named_limits=named_limits,
        registry=registry,
        scheduled=scheduled,
    )
    notices = PauseNotices(
        activations=activations,
        committer=committer,
        named_limits=named_limits,
        pause_search=pause_search,
        registry=registry,
        waiters=waiters,
    )
    activations.on_queued.append(notices.message_queued)
    attachments.on_attached.append(notices.attached)
    named_limits.on_waiting.append(notices.limit_reached)
    pauses = Pauses(
        activations=activations,
        committer=committer,
        completions=completions,
        notices=notices,
        observer=observer,
        payloads=payloads,
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
        payloads=payloads,
        ready=ready,
        registry=registry,
    )
    promises = Promises(clock=clock, committer=committer, completions=completions, targets=targets)
    activations.on_loaded.append(promises.look_at_loaded)
    orders = Orders(registry=registry)
    entry_reads = EntryReads(incarnation, committer=committer, idleness=idleness, reads=reads, ready=ready)
    entry_answers = EntryAnswers(
        committer=committer,
        completions=completions,
        payloads=payloads,
        reads=entry_reads,
        ready=ready,
    )
    entry_answers.on_unreadable = pauses.pause
    events = Events(settings)
    store_questions = StoreQuestions(incarnation, background=background, committer=committer, ready=ready, store=store)
    question_commands = StoreQuestionCommands(entry_answers, store_questions)
    commands: dict[type[Command], CommandKind[Any]] = {
        Attach: AttachCommands(attachments),
        AwaitResume: AwaitResumeCommands(),
        AwaitSignal: AwaitSignalCommands(signals),
        Call: CallCommands(messages),
        Cancel: CancelCommands(orders),
        CompleteAwakeable: CompleteAwakeableCommands(signals, registry),
        CompletePromise: CompletePromiseCommands(promises, completions, observer),
        GetOutput: GetOutputCommands(attachments),
        GetPromise: GetPromiseCommands(promises, completions),
        GetStatus: GetStatusCommands(attachments),
        IdentifyCall: IdentifyCallCommands(attachments),
        IdentifyRun: IdentifyRunCommands(attachments),
        MakeAwakeable: MakeAwakeableCommands(signals),
        Publish: PublishCommands(events),
        FindObjects: question_commands,
        ReadEvents: question_commands,
        PeekPromise: PeekPromiseCommands(promises, completions),
        ReadEntries: ReadEntriesCommands(entry_answers),
        ReadListRange: ReadListRangeCommands(entry_answers),
        Run: RunCommands(
            incarnation, actions=around.actions, committer=committer, listener=action_endings, settings=settings
        ),
        Send: SendCommands(messages, completions),
        SendSignal: SendSignalCommands(signals, completions, observer, registry),
        Sleep: SleepCommands(timers),
    }
    ended_journals = EndedJournals(
        incarnation,
        background=background,
        committer=committer,
        idleness=idleness,
        reads=reads,
        ready=ready,
        registry=registry,
        settings=settings,
    )
    object_expiry = ObjectExpiry(clock)
    object_deletion = ObjectDeletion(
        acceptance=acceptance,
        activations=activations,
        committer=committer,
        entropy=around.entropy,
        expiry=object_expiry,
        targets=targets,
    )
    state_edits = StateEdits(acceptance=acceptance, committer=committer, entropy=around.entropy, targets=targets)
    emptying = Emptying(
        incarnation, background=background, committer=committer, reads=reads, ready=ready, settings=settings
    )
    endings = Endings(
        activations=activations,
        attachments=attachments,
        clock=clock,
        commands=commands,
        committer=committer,
        emptying=emptying,
        kept_journals=KeptJournals(clock=clock, settings=settings, targets=targets, versions=versions),
        object_expiry=object_expiry,
        named_limits=named_limits,
        observer=observer,
        orders=orders,
        passivation=passivation,
        payloads=payloads,
        registry=registry,
        targets=targets,
        timers=timers,
    )
    workflow_retention = WorkflowRetention(
        incarnation,
        activations=activations,
        clock=clock,
        committer=committer,
        emptying=emptying,
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
        named_limits=named_limits,
        observer=observer,
        ready=ready,
        registry=registry,
        signals=signals,
        timers=timers,
        waiters=waiters,
    )
    reach = Reach(activations=activations, committer=committer, registry=registry, scheduled=scheduled, timers=timers)
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
    retries = Retries(
        cancellation=cancellation,
        clock=clock,
        committer=committer,
        endings=endings,
        observer=observer,
        pauses=pauses,
        payloads=payloads,
        ready=ready,
        settings=settings,
        timers=timers,
    )
    named_limits.on_mistake = retries.attempt_failed
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
    wait_graph = WaitGraph(activations=activations, named_limits=named_limits, registry=registry)
    deadlocks = Deadlocks(
        incarnation,
        activations=activations,
        committer=committer,
        completions=completions,
        endings=endings,
        graph=wait_graph,
        idleness=idleness,
        named_limits=named_limits,
        observer=observer,
        passivation=passivation,
        reach=reach,
        settings=settings,
        waiters=waiters,
    )
    activations.on_queued.append(deadlocks.message_queued)
    attachments.on_attached.append(deadlocks.attached)
    named_limits.on_waiting.append(deadlocks.limit_reached)
    named_limits.on_left = deadlocks.place_left
    setting_up = SettingUp(
        by_address,
        incarnation,
        idleness=idleness,
        made=around.made,
        ready=ready,
        registry=registry,
        retries=retries,
    )
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
        setting_up=setting_up,
        settings=settings,
        sliced_work=sliced_work,
        versions=versions,
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
        named_limits=named_limits,
        observer=observer,
        orders=orders,
        pauses=pauses,
        payloads=payloads,
        preparation=preparation,
        registry=registry,
        rereading=Rereading(pauses=pauses, reads=entry_reads, ready=ready, registry=registry),
        retries=retries,
        settings=settings,
        signals=signals,
        state_migrations=StateMigrations(committer=committer),
        state_size=StateSize(observer, settings),
        targets=targets,
        versions=versions,
    )
    subscriptions = Subscriptions(
        incarnation,
        acceptance=acceptance,
        activations=activations,
        actors=actors,
        background=background,
        clock=clock,
        committer=committer,
        dead_letters=DeadLetters(clock, payloads),
        endings=endings,
        entropy=around.entropy,
        events=events,
        feeds=around.feeds,
        idleness=idleness,
        left=around.left,
        observer=observer,
        payloads=payloads,
        ready=ready,
        rows=around.subscriptions,
        shortened=around.shortened,
        settings=settings,
        store=store,
    )
    Pump(
        incarnation,
        clock=clock,
        coding=coding,
        committer=committer,
        idleness=idleness,
        observer=observer,
        failure=around.failure,
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
        ended_journals=ended_journals,
        entry_reads=entry_reads,
        event_retention=EventRetention(
            incarnation,
            background=background,
            clock=clock,
            committer=committer,
            events=events,
            has_events=around.has_events,
            histories={name: one.history_us for name, one in actors.items() if one.history_us is not None},
            ready=ready,
            settings=settings,
            store=store,
            subscriptions=subscriptions,
        ),
        idleness=idleness,
        object_deletion=object_deletion,
        state_edits=state_edits,
        named_limits=named_limits,
        passivation=passivation,
        pause_search=pause_search,
        pauses=pauses,
        payloads=payloads,
        reach=reach,
        ready=ready,
        recovery=Recovery(
            incarnation,
            activations=activations,
            actors=actors,
            background=background,
            deadlocks=deadlocks,
            last_position=around.last_position,
            named_limits=named_limits,
            obedience=obedience,
            observer=observer,
            settings=settings,
            store=store,
        ),
        registry=registry,
        restarts_as_new=RestartsAsNew(
            acceptance=acceptance,
            committer=committer,
            continuations=continuations,
            ended_journals=ended_journals,
            entropy=around.entropy,
            targets=targets,
        ),
        retention=Retention(
            incarnation,
            background=background,
            clock=clock,
            committer=committer,
            ended_journals=ended_journals,
            object_deletion=object_deletion,
            object_expiry=object_expiry,
            ready=ready,
            registry=registry,
            settings=settings,
            store=store,
            workflows=workflow_retention,
        ),
        scheduled=scheduled,
        store_questions=store_questions,
        subscriptions=subscriptions,
        schedules=Schedules(
            incarnation,
            acceptance=acceptance,
            actors=actors,
            background=background,
            clock=clock,
            committer=committer,
            entropy=around.entropy,
            has_rows=around.has_schedules,
            idleness=idleness,
            observer=observer,
            ready=ready,
            registry=registry,
            store=store,
            targets=targets,
        ),
        sources=Sources(
            incarnation,
            acceptance=acceptance,
            activations=activations,
            background=background,
            clock=clock,
            committer=committer,
            endings=endings,
            entropy=around.entropy,
            feeds=around.sources,
            idleness=idleness,
            left=around.left,
            observer=observer,
            payloads=payloads,
            ready=ready,
            store=store,
        ),
        setting_up=setting_up,
        signals=signals,
        sliced_work=sliced_work,
        targets=targets,
        timers=timers,
        wait_graph=wait_graph,
        waiters=waiters,
        workflows=workflow_retention,
    )
