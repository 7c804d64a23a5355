"""A job sees what was committed before it was asked for, also in the file that another thread writes."""

import asyncio
import threading

from headrace import embedded
from headrace.streams.config import ConsumerConfig, StreamConfig


def test_a_consumer_of_a_stream_that_was_made_during_a_transaction(tmp_path):
    began, enough = threading.Event(), threading.Event()

    def look_and_stay(connection):
        connection.execute("SELECT count(*) FROM stream").fetchall()
        began.set()
        enough.wait(10)

    async def run():
        async with embedded.open(tmp_path / "d") as streams:
            looking = asyncio.ensure_future(streams._store.consumers.call(look_and_stay))
            while not began.is_set():
                await asyncio.sleep(0.01)
            stream = await streams.create_stream(StreamConfig(name="S"))
            making = asyncio.ensure_future(stream.create_consumer(ConsumerConfig(durable="c")))
            await asyncio.sleep(0.05)
            enough.set()
            await looking
            assert (await making).name == "c"

    asyncio.run(run())
