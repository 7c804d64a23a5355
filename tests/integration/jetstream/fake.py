"""A JetStream API that says what a test wants: a connection that answers below a prefix of its own on a real server."""

import asyncio
from contextlib import asynccontextmanager

import msgspec

from headrace.jetstream import JetStream, JetStreamOptions
from headrace.nats.connection import Connection

PREFIX = "fake.api"
PATIENCE = 20


async def until(condition):
    """Wait for it, with an end."""
    for _ in range(PATIENCE * 100):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


class Fake:
    """Answers each request with `answer(tail, body)`: JSON, bytes, or None for silence; keeps what was asked."""

    def __init__(self, connection, answer):
        self.asked = []
        self._connection = connection
        self._answer = answer
        self._reply = b""
        connection.subscribe(f"{PREFIX}.>", self._take)

    def _take(self, subject, reply, header, data):
        tail = subject.decode().removeprefix(f"{PREFIX}.")
        self.asked.append((tail, msgspec.json.decode(data) if data else None))
        self._reply = reply
        said = self._answer(tail, self.asked[-1][1])
        if said is not None:
            block, body = said if isinstance(said, tuple) else (b"", said)
            self.say(block, body if isinstance(body, bytes) else msgspec.json.encode(body))

    def say(self, block, body):
        """One frame to whoever asked last, before what `answer` returns."""
        self._connection.send(self._reply, b"", block, body)


@asynccontextmanager
async def fake(url, answer, **options):
    """A `JetStream` whose server is a `Fake`."""
    async with Connection(url) as connection, Connection(url) as other:
        asked = Fake(other, answer)
        await other.flush()
        async with JetStream(connection, JetStreamOptions(api_prefix=PREFIX, **options)) as streams:
            yield streams, asked
