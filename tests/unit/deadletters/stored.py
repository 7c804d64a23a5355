"""A test engine that remembers: topics of several sources, groups that keep what was acknowledged, and real bounds."""

import asyncio
from contextlib import asynccontextmanager

from headrace.core.broker import Groups
from headrace.core.delivery import Ack, Position
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow import letter
from tests.unit.flow.scripted import ScriptedBroker, ScriptedSubscription

DEAD = "dead.orders"
_SOURCES = 2


class StoringBroker(ScriptedBroker):
    """``joining``: seconds until a group hands anything out; ``on_publish``: called after each publish."""

    def __init__(self, **capabilities):
        super().__init__(**capabilities)
        self.done = {}
        self.joining = 0.0
        self.on_publish = None

    async def publish(self, message, options=None):
        receipt = await super().publish(message, options)
        if self.on_publish is not None:
            await self.on_publish(message)
        return receipt

    @asynccontextmanager
    async def _open(self, topics, options):
        done = set() if options.group is None else self.done.setdefault((topics[0], options.group), set())
        begins = asyncio.get_running_loop().time() + (0 if options.group is None else self.joining)
        subscription = StoringSubscription(topics, options, self.lost, done, begins)
        for message in self.stored[topics[0]]:
            subscription.offer(message)
        self.subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self.subscriptions.remove(subscription)
            subscription.closed = True


class StoringSubscription(ScriptedSubscription):
    def __init__(self, topics, options, lost, done, begins):
        super().__init__(topics, options, lost)
        self._done = done
        self._begins = begins
        self._most = options.max_in_flight or 256

    def offer(self, message):
        super().offer(message)
        if self._next in self._done:
            self.available.pop()

    async def pull(self, limit, wait):
        room = min(limit, self._most - self.out)
        late = self._begins - asyncio.get_running_loop().time()
        if room <= 0 or late > wait:
            await asyncio.sleep(wait)
            return []
        await asyncio.sleep(max(0, late))
        return await super().pull(room, wait)

    def settle(self, delivery, outcome):
        super().settle(delivery, outcome)
        if isinstance(outcome, Ack):
            self._done.add(delivery.token)

    def position(self, delivery):
        return Position(f"{self.topics[0]}/{delivery.token % _SOURCES}", delivery.token // _SOURCES)


def queue():
    """A broker whose topics are queues."""
    return StoringBroker(groups=Groups.ONE, broadcast=False)


def a_letter(number, reason="why"):
    """As a worker would have buried it."""
    record = {letter.ID: f"o{number}", letter.SOURCE: "orders", letter.REASON: reason, letter.PASS: "1"}
    return Message(
        topic=DEAD, body=b"%d" % number, id=f"orders.o{number}.g.dead", headers=Headers(list(record.items()))
    )


async def bury(broker, count, reason=lambda number: "why"):
    """Store so many letters."""
    for number in range(count):
        await broker.publish(a_letter(number, reason(number)))


def redriven(broker):
    """The numbers of those that went back, in order."""
    return [int(message.body) for message in broker.stored["orders"]]
