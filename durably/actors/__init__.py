"""What may be asked: services, virtual objects, their handlers and state, contexts and references."""

from durably.actors.action_context import ActionContext as ActionContext
from durably.actors.action_context import action_context as action_context
from durably.actors.actor import Service as Service
from durably.actors.actor import VirtualObject as VirtualObject
from durably.actors.actor import Workflow as Workflow
from durably.actors.awakeable import Awakeable as Awakeable
from durably.actors.caller import Caller as Caller
from durably.actors.compensations import Compensations as Compensations
from durably.actors.context import Context as Context
from durably.actors.context import HandlerInfo as HandlerInfo
from durably.actors.context import ObjectContext as ObjectContext
from durably.actors.context import Request as Request
from durably.actors.context import SharedContext as SharedContext
from durably.actors.context import SharedWorkflowContext as SharedWorkflowContext
from durably.actors.context import WorkflowContext as WorkflowContext
from durably.actors.decorators import cron as cron
from durably.actors.decorators import handler as handler
from durably.actors.decorators import shared as shared
from durably.actors.dependencies import ActivationKey as ActivationKey
from durably.actors.dependencies import Factory as Factory
from durably.actors.dependencies import Keyed as Keyed
from durably.actors.dependencies import factory as factory
from durably.actors.handler_info import ActorInfo as ActorInfo
from durably.actors.handler_info import HandlerOptions as HandlerOptions
from durably.actors.large_state import DurableDict as DurableDict
from durably.actors.large_state import DurableList as DurableList
from durably.actors.large_state import Lazy as Lazy
from durably.actors.limits import Limit as Limit
from durably.actors.middleware import CallNext as CallNext
from durably.actors.middleware import Middleware as Middleware
from durably.actors.migrations import migrate as migrate
from durably.actors.promises import DurablePromise as DurablePromise
from durably.actors.promises import promise as promise
from durably.actors.retry import RetryPolicy as RetryPolicy
from durably.actors.select import first_success as first_success
from durably.actors.select import select as select
from durably.actors.select import settled as settled
from durably.actors.state import state as state
from durably.actors.transport import Invocation as Invocation
from durably.actors.values.durations import FOREVER as FOREVER
from durably.actors.values.msgpack_serde import MsgpackSerde as MsgpackSerde
from durably.actors.values.serde import BytesSerde as BytesSerde
from durably.actors.values.serde import JsonSerde as JsonSerde
from durably.actors.values.serde import Serde as Serde

__all__ = [
    "FOREVER",
    "ActionContext",
    "ActivationKey",
    "ActorInfo",
    "Awakeable",
    "BytesSerde",
    "CallNext",
    "Caller",
    "Context",
    "DurableDict",
    "DurableList",
    "DurablePromise",
    "Factory",
    "HandlerInfo",
    "HandlerOptions",
    "Invocation",
    "JsonSerde",
    "Keyed",
    "Lazy",
    "Limit",
    "Middleware",
    "MsgpackSerde",
    "ObjectContext",
    "Request",
    "RetryPolicy",
    "Serde",
    "Service",
    "SharedContext",
    "SharedWorkflowContext",
    "VirtualObject",
    "Workflow",
    "WorkflowContext",
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
]
