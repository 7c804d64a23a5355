"""What the tests of the wire client share: a loop with patience, a server, a listener that writes everything down."""

import asyncio
import inspect
from contextlib import contextmanager

from headrace.nats import Connection, ConnectionOptions
from headrace.testing.nats import NatsServer

PATIENCE = 30.0
QUICK = {"reconnect_wait": 0.01, "reconnect_max_wait": 0.1, "connect_timeout": 10.0}


def run(test):
    """A test as a plain function: on a loop of its own, with an end."""

    def plain(**fixtures):
        asyncio.run(asyncio.wait_for(test(**fixtures), PATIENCE + 20))

    plain.__name__ = test.__name__
    plain.__signature__ = inspect.signature(test)
    return plain


@contextmanager
def plain_server(**options):
    with NatsServer(jetstream=False, **options) as server:
        yield server


def connection_to(servers, **options):
    return Connection(servers, ConnectionOptions(**{**QUICK, **options}))


async def until(condition):
    """Wait, with patience, for what another task or process brings about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


class Diary:
    """A listener."""

    def __init__(self, connection=None, restored=None):
        self.entries = []
        self._restored = restored
        if connection is not None:
            connection.add_listener(self)

    def lost(self, error):
        self.entries.append(("lost", error))

    def restored(self):
        self.entries.append(("restored", None))
        if self._restored:
            self._restored()

    def closed(self, error):
        self.entries.append(("closed", error))

    @property
    def words(self):
        return [word for word, _ in self.entries]
