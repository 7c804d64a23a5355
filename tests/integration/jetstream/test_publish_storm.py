"""Publishers of every kind while the link is cut, frozen and refused at random: nothing acknowledged is lost, nothing
doubled, nothing left waiting. A round takes about two seconds.
"""

import asyncio
import random
from collections import Counter

import pytest

from headrace import jetstream
from headrace.core.errors import PublishError
from headrace.jetstream.options import JetStreamOptions
from headrace.nats.options import ConnectionOptions
from headrace.streams.config import StreamConfig, StreamMessage
from headrace.streams.info import PubAck
from headrace.testing.nats import Direction, NatsServer, Proxy

PATIENCE = 30


class Storm:
    """One round: the publishers, and what became of each message."""

    def __init__(self, js, subject):
        self.js, self.subject = js, subject
        self.acked = {}
        self.outcomes = Counter()
        self.over = False
        self.futures = []
        self._count = 0

    def body(self):
        self._count += 1
        return b"%d" % self._count

    def note(self, body, result):
        self.outcomes[type(result).__name__] += 1
        if isinstance(result, PubAck):
            self.acked[body] = result.sequence

    def chance(self, body):
        return body.decode() if random.random() < 0.6 else None

    async def one_by_one(self):
        while not self.over:
            body = self.body()
            try:
                self.note(body, await self.js.publish(self.subject, body, msg_id=self.chance(body)))
            except PublishError as error:
                self.note(body, error)
                await asyncio.sleep(0.001)

    async def without_waiting(self):
        while not self.over:
            body = self.body()
            try:
                self.futures.append((body, await self.js.publish_async(self.subject, body, msg_id=self.chance(body))))
            except PublishError as error:
                self.note(body, error)
                await asyncio.sleep(0.001)

    async def in_batches(self):
        while not self.over:
            bodies = [self.body() for _ in range(random.choice([1, 10, 300, 1_000]))]
            batch = [StreamMessage(self.subject, body, msg_id=self.chance(body)) for body in bodies]
            for body, result in zip(bodies, await self.js.publish_many(batch), strict=True):
                self.note(body, result)
            await asyncio.sleep(0)

    async def cancelled(self):
        calls = (
            lambda: self.js.publish(self.subject, b"cancelled"),
            lambda: self.js.publish_async(self.subject, b"cancelled"),
            lambda: self.js.publish_many([StreamMessage(self.subject, b"cancelled")] * 50),
        )
        while not self.over:
            task = asyncio.create_task(random.choice(calls)())
            await asyncio.sleep(random.random() * 0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def rest(self):
        """All futures are answered, and then nothing is left waiting."""
        for body, future in self.futures:
            try:
                self.note(body, await asyncio.wait_for(future, PATIENCE))
            except PublishError as error:
                self.note(body, error)
        async with asyncio.timeout(PATIENCE):
            while self.js.connection.replies.waiting:
                await asyncio.sleep(0.02)
        assert self.js.publish_async_pending == 0


async def break_links(proxy):
    for _ in range(6):
        await asyncio.sleep(random.random() * 0.15)
        match random.choice(["cut", "cut inside a frame", "freeze", "refuse"]):
            case "cut":
                proxy.cut()
            case "cut inside a frame":
                proxy.cut_after(random.randrange(3_000), random.choice(list(Direction)))
            case "freeze":
                proxy.freeze(random.choice(list(Direction)))
                await asyncio.sleep(random.random() * 0.2)
                random.choice([proxy.cut, proxy.thaw])()
            case "refuse":
                proxy.down()
                proxy.cut()
                await asyncio.sleep(random.random() * 0.3)
                proxy.up()


async def stored(server, subject):
    async with jetstream.connect(server.url, options=JetStreamOptions(timeout=PATIENCE)) as js:
        stream, found, start = await js.stream(subject), {}, 1
        while page := await stream.read(start=start, limit=10_000):
            for message in page:
                assert message.data not in found or message.data == b"cancelled", f"{message.data} is there twice"
                found[message.data] = message.sequence
            start = page[-1].sequence + 1
        return found


async def weather(server, proxy, subject):
    options = JetStreamOptions(
        timeout=random.choice([0.4, 3, 10]),
        max_pending=random.choice([1, 7, 100, 4_000]),
        on_publish_error=lambda message, error: None,
        connection=ConnectionOptions(
            reconnect_wait=0.01, reconnect_max_wait=0.05, on_error=lambda error: None,
            reconnect_buffer=random.choice([2_000, 8 << 20]),
        ),
    )  # fmt: skip
    async with jetstream.connect(proxy.url, options=options) as js:
        await js.create_stream(StreamConfig(name=subject))
        storm = Storm(js, subject)
        kinds = (storm.one_by_one, storm.one_by_one, storm.without_waiting, storm.in_batches, storm.cancelled)
        tasks = [asyncio.create_task(kind()) for kind in kinds]
        await break_links(proxy)
        storm.over = True
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
        await storm.rest()
    found = await stored(server, subject)
    assert {body: found.get(body) for body in storm.acked} == storm.acked
    print(dict(storm.outcomes))


@pytest.mark.chaos
def test_storm(rounds):
    with NatsServer() as server:
        for number in range(max(1, rounds // 10)):
            random.seed(number)
            with Proxy(server.port) as proxy:
                asyncio.run(weather(server, proxy, f"storm{number}"))
