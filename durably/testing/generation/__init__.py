"""Programs and arguments written by hypothesis. Needs the extra `durably[testing]`."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("hypothesis") is None:
    raise ModuleNotFoundError(
        "durably.testing.generation needs the extra `testing`: pip install 'durably[testing]'", name="hypothesis"
    )

from durably.testing.generation.stateful import ActorStateMachine as ActorStateMachine
from durably.testing.generation.strategies import ActorCall as ActorCall
from durably.testing.generation.strategies import arguments as arguments
from durably.testing.generation.strategies import calls as calls
from durably.testing.generation.values import NoStrategyError as NoStrategyError
