"""The services of tests/conformance on a store: `durably serve tests.conformance_app:runtime`.

Some of them wait for themselves on purpose, until they are cancelled or killed, so deadlocks wait.
"""

from __future__ import annotations

from durably import Runtime
from durably.runtime.environment import Environment
from tests.conformance.calling_services import Proxy, TestUtilsService
from tests.conformance.command_interpreter import VirtualObjectCommandInterpreter
from tests.conformance.failing_services import Failing, NonDeterministic
from tests.conformance.object_interpreter import (
    ObjectInterpreterL0,
    ObjectInterpreterL1,
    ObjectInterpreterL2,
    ServiceInterpreterHelper,
)
from tests.conformance.state_services import Counter, ListObject, MapObject
from tests.conformance.waiting_services import (
    AwakeableHolder,
    BlockAndWaitWorkflow,
    CancelTestBlockingService,
    CancelTestRunner,
    KillTestRunner,
    KillTestSingleton,
)

SERVICES = (
    Counter,
    Proxy,
    MapObject,
    ListObject,
    AwakeableHolder,
    BlockAndWaitWorkflow,
    CancelTestRunner,
    CancelTestBlockingService,
    KillTestRunner,
    KillTestSingleton,
    Failing,
    NonDeterministic,
    TestUtilsService,
    VirtualObjectCommandInterpreter,
    ObjectInterpreterL0,
    ObjectInterpreterL1,
    ObjectInterpreterL2,
    ServiceInterpreterHelper,
)


def make_runtime(store: str = "sqlite:///conformance.db", environment: Environment | None = None) -> Runtime:
    """All of them on a store."""
    return Runtime(store, SERVICES, deadlocks="wait", environment=environment)


runtime = make_runtime()
