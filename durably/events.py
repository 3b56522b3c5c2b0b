"""Events: what has happened, told once to everyone who has subscribed, exactly once and in order for each key.

@dataclass
class UserCreated:
    name: str

class Registration(Service):
    @handler
    async def register(self, ctx: Context, name: str) -> None:
        await ctx.publish(UserCreated(name), key=name)

class Mailer(Service):
    @subscribe(UserCreated)
    async def welcome(self, ctx: Context, event: UserCreated) -> None:
        await ctx.run("mail", send_mail, event.name)
"""

from durably.actors.event_values import event as event
from durably.actors.events.subscribing import subscribe as subscribe
from durably.actors.subscriptions import SubscriptionStart as SubscriptionStart
from durably.errors import EventDeliveryError as EventDeliveryError
from durably.runtime.gateway.dead_letter_control import DeadLetter as DeadLetter
from durably.runtime.gateway.subscription_control import SubscriptionState as SubscriptionState
from durably.runtime.runtime import PubSub as PubSub

__all__ = [
    "DeadLetter",
    "EventDeliveryError",
    "PubSub",
    "SubscriptionStart",
    "SubscriptionState",
    "event",
    "subscribe",
]
