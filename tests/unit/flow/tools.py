"""What the tests of a worker share."""

import asyncio

from headrace.core.delivery import Delivery
from headrace.flow import RetryPolicy, Topic

NO_JITTER = RetryPolicy(jitter=0)


async def fill(broker, *bodies, topic="orders", key=None):
    for body in bodies:
        await Topic(broker, topic).send(body, key=key(body) if callable(key) else key)


def now() -> float:
    return asyncio.get_running_loop().time()


async def nothing(delivery: Delivery) -> None:
    pass


async def steps(count):
    for _ in range(count):
        await asyncio.sleep(0)
