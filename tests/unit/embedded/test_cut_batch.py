"""A batch that is too large for one transaction keeps the order of each key, whatever becomes of its first part."""

import asyncio
import threading
from itertools import repeat

import pytest

from headrace import embedded
from headrace.core.errors import Fault, PublishError
from headrace.embedded.publishing import publisher
from headrace.streams.config import StreamConfig, StreamMessage


def batch(count, key):
    return list(map(StreamMessage, repeat("S", count), (b"%d" % number for number in range(count)), repeat({}),
                    repeat(None), repeat(key)))  # fmt: skip


@pytest.mark.parametrize(("key", "stored"), [(b"key", []), (None, [b"10000"])])
def test_the_second_part_runs_before_the_loop_hears_that_the_first_failed(key, stored):
    """The loop computes meanwhile: it sees both commits at once."""

    async def run():
        async with embedded.open(":memory:") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            thread = streams._store.streams
            queued, refused, both = threading.Event(), [], threading.Event()

            def refuse_first():
                if refused:
                    both.set()
                elif thread.connection.total_changes() - before >= publisher.CHUNK_MESSAGES:
                    refused.append(True)
                    return True
                return False

            def compute():
                queued.set()
                both.wait(5)

            before = thread.connection.total_changes()
            thread.connection.set_commit_hook(refuse_first)
            held = asyncio.ensure_future(thread.call(lambda _: queued.wait(5)))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(compute)
            results = await streams.publish_many(batch(publisher.CHUNK_MESSAGES + 1, key))
            assert await held
            assert both.is_set()
            assert all(isinstance(each, PublishError) for each in results[:-1])
            assert isinstance(results[-1], PublishError) == (key is not None)
            if key is not None:
                assert results[-1].fault is Fault.UNAVAILABLE
            assert [message.data for message in await stream.read()] == stored

    asyncio.run(run())


def test_the_second_part_of_a_cancelled_batch_overtakes_nothing():
    async def run():
        async with embedded.open(":memory:") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            free = threading.Event()
            held = asyncio.ensure_future(streams._store.streams.call(lambda _: free.wait(5)))
            sent = asyncio.ensure_future(streams.publish_many(batch(publisher.CHUNK_MESSAGES + 1, b"key")))
            await asyncio.sleep(0)
            sent.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sent
            free.set()
            await held
            assert await stream.read() == []

    asyncio.run(run())
