"""The peers of the embedded engine, each asked the same: publish so many, take and acknowledge so many."""

import asyncio
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from headrace.testing.nats import NatsServer

BODY = b"x" * 100


def nats_server(folder, *, always):
    """A server from its wheel; `always`: it syncs before it answers, as headrace does."""
    store = Path(tempfile.mkdtemp(dir=folder, prefix="nats-"))
    return NatsServer(store, config="jetstream { sync_interval: always }" if always else "")


async def nats_publish(url, count, tasks):
    """`tasks` tasks, each awaits its answer; messages per second."""
    import nats

    connection = await nats.connect(url)
    stream = connection.jetstream()
    await stream.add_stream(name="S", subjects=["s.>"])

    async def task():
        for _ in range(count // tasks):
            await stream.publish("s.a", BODY)

    start = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(tasks)))
    took = time.perf_counter() - start
    await connection.close()
    return count / took


async def nats_consume(url, count):
    """Fetch by hundreds, acknowledge each; messages per second."""
    import nats

    connection = await nats.connect(url)
    stream = connection.jetstream()
    subscription = await stream.pull_subscribe("s.>", "c", stream="S")
    start, got = time.perf_counter(), 0
    while got < count:
        for msg in await subscription.fetch(min(500, count - got)):
            await msg.ack()
            got += 1
    took = time.perf_counter() - start
    await connection.close()
    return count / took


def missing(*modules):
    """Which of these is not installed; said aloud."""
    gone = [module for module in modules if find_spec(module) is None]
    if gone:
        print(f"SKIPPED: {', '.join(gone)} not installed (make bench installs the extra `bench`)")
    return bool(gone)


def sqlite_queues(folder, count):
    """name -> (puts per second, gets with acknowledgement per second) of the SQLite queues that are installed."""
    rates = {}
    if not missing("persistqueue"):
        import persistqueue

        queue = persistqueue.SQLiteAckQueue(str(Path(folder) / "persist"), auto_commit=True, multithreading=False)
        put = rate(count, lambda: queue.put(BODY))
        rates["persist-queue"] = (put, rate(count, lambda: queue.ack(queue.get(block=False))))
        queue.close()
    if not missing("litequeue"):
        import litequeue

        queue = litequeue.LiteQueue(str(Path(folder) / "lite.db"))
        text = BODY.decode()
        put = rate(count, lambda: queue.put(text))
        rates["litequeue"] = (put, rate(count, lambda: queue.done(queue.pop().message_id)))
        queue.conn.close()
    return rates


def rate(count, call):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - start)
