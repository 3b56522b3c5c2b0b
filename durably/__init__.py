"""Durable virtual objects for asyncio: state, messages, timers and side effects that survive `kill -9`.

- To write: `VirtualObject`, `Service` and `Workflow` are subclassed; `handler` and `shared` make methods callable by
  message; `state` declares durable fields (large ones as `Lazy`, `DurableDict` or `DurableList`), and `promise`
  the `DurablePromise`s of a workflow. A handler gets an
  `ObjectContext`, a `SharedContext` or a `Context` (in a workflow a `WorkflowContext` or a `SharedWorkflowContext`),
  which talks to others (`Caller`), runs side effects, sleeps, tells the time and undoes what was done
  (`Compensations`); `select` waits for the first of several.
- Around them: `Middleware`, which runs what comes next (`CallNext`) and sees the handler (`HandlerInfo` with its
  `HandlerOptions`, `ActorInfo`). Constructors get dependencies: values, what a `factory` (`Factory`) makes for
  the runtime or an activation (`ActivationKey`), services, and `Keyed` objects and workflows.
- To run: `Runtime` in your event loop, with `Limits`, on a `SqliteStore` or a `MemoryStore`. A `Limit` says how many
  invocations run at once, or start in a second. What is sent is an `Invocation`, whose `InvocationStatus` says where
  it stands. `RetryPolicy` says when what failed is tried again. `tune_garbage_collection` sets Python's collector for
  many requests at a time.
- To put on the wire: `JsonSerde`, `BytesSerde`, or a `Serde` of your own.
- What goes wrong is a `DurablyError`; a handler that means to fail for good raises `TerminalError`.
- To test: `durably.testing`, above all `Harness`. To serve from a shell: `durably serve`.
"""

import _durably_command  # noqa: F401  # pyright: ignore[reportUnusedImport]  # First: see there.
from durably.actors import FOREVER as FOREVER
from durably.actors import ActionContext as ActionContext
from durably.actors import ActivationKey as ActivationKey
from durably.actors import ActorInfo as ActorInfo
from durably.actors import Awakeable as Awakeable
from durably.actors import BytesSerde as BytesSerde
from durably.actors import Caller as Caller
from durably.actors import CallNext as CallNext
from durably.actors import Compensations as Compensations
from durably.actors import Context as Context
from durably.actors import DurableDict as DurableDict
from durably.actors import DurableList as DurableList
from durably.actors import DurablePromise as DurablePromise
from durably.actors import Factory as Factory
from durably.actors import HandlerInfo as HandlerInfo
from durably.actors import HandlerOptions as HandlerOptions
from durably.actors import Invocation as Invocation
from durably.actors import JsonSerde as JsonSerde
from durably.actors import Keyed as Keyed
from durably.actors import Lazy as Lazy
from durably.actors import Limit as Limit
from durably.actors import Middleware as Middleware
from durably.actors import MsgpackSerde as MsgpackSerde
from durably.actors import ObjectContext as ObjectContext
from durably.actors import Request as Request
from durably.actors import RetryPolicy as RetryPolicy
from durably.actors import Serde as Serde
from durably.actors import Service as Service
from durably.actors import SharedContext as SharedContext
from durably.actors import SharedWorkflowContext as SharedWorkflowContext
from durably.actors import VirtualObject as VirtualObject
from durably.actors import Workflow as Workflow
from durably.actors import WorkflowContext as WorkflowContext
from durably.actors import action_context as action_context
from durably.actors import cron as cron
from durably.actors import factory as factory
from durably.actors import first_success as first_success
from durably.actors import handler as handler
from durably.actors import migrate as migrate
from durably.actors import promise as promise
from durably.actors import select as select
from durably.actors import settled as settled
from durably.actors import shared as shared
from durably.actors import state as state
from durably.errors import ActionFailedError as ActionFailedError
from durably.errors import ActionTimeoutError as ActionTimeoutError
from durably.errors import AlreadyCompletedError as AlreadyCompletedError
from durably.errors import AlreadyStartedError as AlreadyStartedError
from durably.errors import BareOperationError as BareOperationError
from durably.errors import BlockingIOInHandlerError as BlockingIOInHandlerError
from durably.errors import CancelledInvocationError as CancelledInvocationError
from durably.errors import CodecError as CodecError
from durably.errors import DeadlineExceededError as DeadlineExceededError
from durably.errors import DeadlockError as DeadlockError
from durably.errors import DefinitionError as DefinitionError
from durably.errors import DurablyError as DurablyError
from durably.errors import ForgottenAwaitError as ForgottenAwaitError
from durably.errors import HandlerMistakeError as HandlerMistakeError
from durably.errors import InvalidArgumentError as InvalidArgumentError
from durably.errors import InvalidDurationError as InvalidDurationError
from durably.errors import InvalidHeaderError as InvalidHeaderError
from durably.errors import InvalidKeyError as InvalidKeyError
from durably.errors import InvocationStatusError as InvocationStatusError
from durably.errors import NonDeterminismError as NonDeterminismError
from durably.errors import NotReadyError as NotReadyError
from durably.errors import OverloadedError as OverloadedError
from durably.errors import PausedInvocationError as PausedInvocationError
from durably.errors import RetryableError as RetryableError
from durably.errors import RuntimeStoppedError as RuntimeStoppedError
from durably.errors import ServerUnreachableError as ServerUnreachableError
from durably.errors import SharedStateError as SharedStateError
from durably.errors import StateMigrationError as StateMigrationError
from durably.errors import StateVersionError as StateVersionError
from durably.errors import StoreInUseError as StoreInUseError
from durably.errors import StoreLostError as StoreLostError
from durably.errors import StoreUnavailableError as StoreUnavailableError
from durably.errors import TerminalError as TerminalError
from durably.errors import UndeclaredStateError as UndeclaredStateError
from durably.errors import UndecodableError as UndecodableError
from durably.errors import UnencodableError as UnencodableError
from durably.errors import UnknownTargetError as UnknownTargetError
from durably.errors import UnreadableRecordError as UnreadableRecordError
from durably.errors import UnsetStateError as UnsetStateError
from durably.errors import WrongContextError as WrongContextError
from durably.ids import InvocationStatus as InvocationStatus
from durably.runtime.gateway.schedule_control import Schedule as Schedule
from durably.runtime.lifecycle.schedules import ScheduleStatus as ScheduleStatus
from durably.runtime.observation.tracing.otlp import Tracing as Tracing
from durably.runtime.runtime import Limits as Limits
from durably.runtime.runtime import Runtime as Runtime
from durably.runtime.supervision.garbage_collection import tune_garbage_collection as tune_garbage_collection
from durably.storage import MemoryStore as MemoryStore
from durably.storage import SqliteStore as SqliteStore
from durably.storage import Store as Store

__all__ = [
    "FOREVER",
    "ActionContext",
    "ActionFailedError",
    "ActionTimeoutError",
    "ActivationKey",
    "ActorInfo",
    "AlreadyCompletedError",
    "AlreadyStartedError",
    "Awakeable",
    "BareOperationError",
    "BlockingIOInHandlerError",
    "BytesSerde",
    "CallNext",
    "Caller",
    "CancelledInvocationError",
    "CodecError",
    "Compensations",
    "Context",
    "DeadlineExceededError",
    "DeadlockError",
    "DefinitionError",
    "DurableDict",
    "DurableList",
    "DurablePromise",
    "DurablyError",
    "Factory",
    "ForgottenAwaitError",
    "HandlerInfo",
    "HandlerMistakeError",
    "HandlerOptions",
    "InvalidArgumentError",
    "InvalidDurationError",
    "InvalidHeaderError",
    "InvalidKeyError",
    "Invocation",
    "InvocationStatus",
    "InvocationStatusError",
    "JsonSerde",
    "Keyed",
    "Lazy",
    "Limit",
    "Limits",
    "MemoryStore",
    "Middleware",
    "MsgpackSerde",
    "NonDeterminismError",
    "NotReadyError",
    "ObjectContext",
    "OverloadedError",
    "PausedInvocationError",
    "Request",
    "RetryPolicy",
    "RetryableError",
    "Runtime",
    "RuntimeStoppedError",
    "Schedule",
    "ScheduleStatus",
    "Serde",
    "ServerUnreachableError",
    "Service",
    "SharedContext",
    "SharedStateError",
    "SharedWorkflowContext",
    "SqliteStore",
    "StateMigrationError",
    "StateVersionError",
    "Store",
    "StoreInUseError",
    "StoreLostError",
    "StoreUnavailableError",
    "TerminalError",
    "Tracing",
    "UndeclaredStateError",
    "UndecodableError",
    "UnencodableError",
    "UnknownTargetError",
    "UnreadableRecordError",
    "UnsetStateError",
    "VirtualObject",
    "Workflow",
    "WorkflowContext",
    "WrongContextError",
    "action_context",
    "cron",
    "factory",
    "first_success",
    "handler",
    "migrate",
    "promise",
    "select",
    "settled",
    "shared",
    "state",
    "tune_garbage_collection",
]
