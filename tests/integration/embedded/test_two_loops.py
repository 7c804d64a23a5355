"""A handle belongs to its loop and thread; two handles of one directory are two members."""

import asyncio
import threading

import pytest

from headrace import embedded
from headrace.core.errors import ClosedError, UsageError
from headrace.streams.config import StreamConfig


def test_another_thread(tmp_path):
    caught = []

    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="S"))

            def elsewhere():
                try:
                    asyncio.run(streams.publish("S"))
                except UsageError as error:
                    caught.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

    asyncio.run(run())
    assert len(caught) == 1


def test_two_opens_in_one_process(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as one, embedded.open(tmp_path / "store") as other:
            await one.create_stream(StreamConfig(name="S"))
            acks = await asyncio.gather(*((one, other)[at % 2].publish("S") for at in range(50)))
            assert sorted(ack.sequence for ack in acks) == list(range(1, 51))
            assert (await other.publish("S", msg_id="x")).duplicate is False
            assert (await one.publish("S", msg_id="x")).duplicate is True

    asyncio.run(run())


def test_after_closing(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="S"))
        await streams.aclose()
        for call in (streams.publish("S"), streams.stream("S"), streams.publish_many([])):
            with pytest.raises(ClosedError):
                await call

    asyncio.run(run())
