"""What may be asked: services, virtual objects, their handlers and state, contexts and references."""

from durably.actors.actor import Service as Service
from durably.actors.actor import VirtualObject as VirtualObject
from durably.actors.actor import Workflow as Workflow
from durably.actors.caller import Caller as Caller
from durably.actors.compensations import Compensations as Compensations
from durably.actors.context import Context as Context
from durably.actors.context import HandlerInfo as HandlerInfo
from durably.actors.context import ObjectContext as ObjectContext
from durably.actors.context import Request as Request
from durably.actors.context import SharedContext as SharedContext
from durably.actors.context import SharedWorkflowContext as SharedWorkflowContext
from durably.actors.context import WorkflowContext as WorkflowContext
from durably.actors.decorators import handler as handler
from durably.actors.decorators import shared as shared
from durably.actors.promises import DurablePromise as DurablePromise
from durably.actors.promises import promise as promise
from durably.actors.retry import RetryPolicy as RetryPolicy
from durably.actors.select import select as select
from durably.actors.state import state as state
from durably.actors.transport import Invocation as Invocation
from durably.actors.values.msgpack_serde import MsgpackSerde as MsgpackSerde
from durably.actors.values.serde import BytesSerde as BytesSerde
from durably.actors.values.serde import JsonSerde as JsonSerde
from durably.actors.values.serde import Serde as Serde

__all__ = [
    "BytesSerde",
    "Caller",
    "Context",
    "DurablePromise",
    "HandlerInfo",
    "Invocation",
    "JsonSerde",
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
    "handler",
    "promise",
    "select",
    "shared",
    "state",
]
