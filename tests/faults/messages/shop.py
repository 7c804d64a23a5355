"""What the message faults share: a broker, messages of known keys, and a ledger of who was handled how often."""

from collections import Counter, defaultdict
from contextlib import asynccontextmanager

from headrace.connect import connect
from headrace.core.delivery import Delivery
from headrace.core.message import Message
from headrace.embedded import EmbeddedOptions

TOPIC, GROUP = "orders", "billing"


@asynccontextmanager
async def opened(where=":memory:"):
    async with connect(where, options=EmbeddedOptions(reserve_bytes=0)) as broker:
        await broker.declare(TOPIC)
        yield broker


def orders(count, keys):
    """Messages with bodies 0, 1, 2, … and so many keys in turn."""
    return [
        Message(topic=TOPIC, key=b"k%d" % (number % keys), body=b"%d" % number, id=f"id-{number:09}")
        for number in range(count)
    ]


class Ledger:
    """Who began, who was done, and whether each key came in its order, one at a time."""

    def __init__(self):
        self.begun, self.done = Counter(), Counter()
        self.wrong = []
        self._running = set()
        self._newest = defaultdict(lambda: -1)

    def begin(self, delivery: Delivery):
        key, number = delivery.message.key, int(delivery.message.body)
        self.begun[number] += 1
        if key in self._running:
            self.wrong.append(f"{key} {number}: another one of its key runs")
        if number not in self.done and number < self._newest[key]:
            self.wrong.append(f"{key} {number} behind {self._newest[key]}")
        self._running.add(key)

    def end(self, delivery: Delivery, *, done):
        key, number = delivery.message.key, int(delivery.message.body)
        self._running.discard(key)
        if done:
            self.done[number] += 1
            self._newest[key] = max(self._newest[key], number)
