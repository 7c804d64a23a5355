"""A job sees what was committed before it was asked for, also in the file that another thread writes."""

import asyncio
import threading

from headrace import embedded
from headrace.embedded.store.thread import DatabaseThread
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


def test_a_consumer_of_a_stream_that_was_made_as_a_transaction_began(tmp_path, monkeypatch):
    """What comes between the snapshot and the first job waits for the next transaction."""
    began, enough = threading.Event(), threading.Event()
    run_jobs = DatabaseThread._run_jobs

    def stay(thread, *given):
        if "consumers" in thread._thread.name and not began.is_set():
            began.set()
            enough.wait(10)
        run_jobs(thread, *given)

    async def run():
        async with embedded.open(tmp_path / "d") as streams:
            monkeypatch.setattr(DatabaseThread, "_run_jobs", stay)
            looking = asyncio.ensure_future(streams._store.consumers.call(lambda _: None))
            while not began.is_set():
                await asyncio.sleep(0.01)
            stream = await streams.create_stream(StreamConfig(name="S"))
            making = asyncio.ensure_future(stream.create_consumer(ConsumerConfig(durable="c")))
            await asyncio.sleep(0.02)
            enough.set()
            await looking
            assert (await making).name == "c"

    asyncio.run(run())
