"""Links cut at random under load, many times: every call ends, and afterwards nothing is left of any."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

import pytest

from headrace.core.errors import BrokerError
from headrace.testing.nats import Direction, Proxy
from tests.integration.nats.scene import connection_to, plain_server, until

pytestmark = [pytest.mark.chaos, pytest.mark.servers]


class Load:
    """Requests, flushes, cancellations and subscriptions on one connection, until `over`."""

    def __init__(self, connection):
        self.connection = connection
        self.over = False
        self.outcomes = Counter()

    async def ask(self):
        while not self.over:
            body = b"%d" % random.getrandbits(32) * random.randint(1, 300)
            try:
                reply = await self.connection.request("svc", body, timeout=random.choice((0.05, 5)))
                assert reply.data == body
                self.outcomes["answered"] += 1
            except BrokerError as error:
                self.outcomes[type(error).__name__] += 1

    async def flush(self):
        while not self.over:
            with suppress(BrokerError):
                await self.connection.flush(3)
            await asyncio.sleep(0.001)

    async def cancel(self):
        while not self.over:
            asking = asyncio.ensure_future(self.connection.request("svc", b"x", timeout=5))
            await asyncio.sleep(random.random() * 0.005)
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled():
                asking.exception()

    async def subscribe(self):
        while not self.over:
            subscription = self.connection.subscribe("svc", lambda *_: None)
            await asyncio.sleep(0)
            if random.random() < 0.5:
                subscription.unsubscribe(3)
            subscription.unsubscribe()
            await asyncio.sleep(0.001)


def disturb(proxy):
    chance = random.random()
    if chance < 0.5:
        proxy.cut_after(random.randint(1, 5000), random.choice(list(Direction)))
    elif chance < 0.8:
        proxy.cut()
    elif chance < 0.85:
        proxy.freeze(random.choice(list(Direction)))


async def story(rounds):
    with plain_server() as server, Proxy(server.port) as proxy:
        options = {"reconnect_wait": 0.002, "reconnect_max_wait": 0.02, "ping_interval": 0.3, "write_limit": 200_000}
        async with (
            connection_to(server.url) as serving,
            connection_to(proxy.url, on_error=lambda _: None, **options) as connection,
        ):
            serving.subscribe("svc", lambda subject, reply, header, data: serving.send(reply, b"", b"", data))
            await serving.flush()
            load = Load(connection)
            calls = [*(load.ask() for _ in range(20)), load.flush(), load.cancel(), load.subscribe()]
            tasks = [asyncio.ensure_future(call) for call in calls]
            for _ in range(rounds):
                await asyncio.sleep(random.random() * 0.05)
                disturb(proxy)
            load.over = True
            _, pending = await asyncio.wait(tasks, timeout=60)
            assert not pending
            await asyncio.gather(*tasks)
            proxy.thaw()
            for _ in range(10):  # the last cut may be still to come
                await until(lambda: connection.connected)
                with suppress(BrokerError):
                    await connection.flush(30)
                    break
            assert load.outcomes["answered"] > 0
            assert not connection.replies.waiting
            assert not connection._life.asking
            assert (connection._outgoing.size, connection._outgoing._controls) == (0, 0)
            assert len(connection._life.subscriptions._all) == len(connection._life._links) == 1
    assert len(asyncio.all_tasks()) == 1


def test_links_cut_at_random_under_load(rounds):
    asyncio.run(story(rounds))
