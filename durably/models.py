"""State machines of typed objects: every object of a model is in one of its states, and changes by transitions only.

class Order(Model, prefix="order", index=("amount",)):
    amount: int

class Created(Order): ...

class Paid(Order):
    payment_reference: str

class Orders(Machine[Order]):
    @initial
    async def create(self, ctx: TransitionContext, amount: int) -> Created:
        return Created(amount=amount)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created, payment_reference: str) -> Paid:
        return Paid.of(order, payment_reference=payment_reference)
"""

from durably.actors.machines.definitions import consumer as consumer
from durably.actors.machines.definitions import initial as initial
from durably.actors.machines.definitions import transition as transition
from durably.actors.machines.machine import Machine as Machine
from durably.actors.machines.model import Fields as Fields
from durably.actors.machines.model import Model as Model
from durably.actors.machines.project import Project as Project
from durably.actors.machines.queries import one_of as one_of
from durably.actors.machines.running import TransitionContext as TransitionContext
from durably.actors.machines.transition import Applied as Applied
from durably.actors.machines.transition import Transition as Transition
from durably.errors import InvalidTransitionError as InvalidTransitionError
from durably.errors import TooManyObjectsError as TooManyObjectsError
from durably.errors import UnknownObjectError as UnknownObjectError

__all__ = [
    "Applied",
    "Fields",
    "InvalidTransitionError",
    "Machine",
    "Model",
    "Project",
    "TooManyObjectsError",
    "Transition",
    "TransitionContext",
    "UnknownObjectError",
    "consumer",
    "initial",
    "one_of",
    "transition",
]  # fmt: skip
