"""What is known and not mended: each fails, and as soon as one does not, its entry must go."""

import asyncio

import pytest

from headrace import embedded
from headrace.streams.config import ConsumerConfig, StreamConfig
from tests.differential.defects import DEFECTS
from tests.differential.engines import compare

OPEN = [
    pytest.param(one.program, id=name, marks=pytest.mark.xfail(strict=True, reason=f"{one.room}: {one.what}"))
    for name, one in DEFECTS.items()
]


@pytest.mark.servers
@pytest.mark.parametrize("program", OPEN)
def test_open_defect(program, url):
    compare(url, program, patience=0.3, tolerant=False)


@pytest.mark.xfail(strict=True, reason="embedded: num_pending is counted when somebody asks, not as of the delivery")
def test_num_pending_is_as_of_the_delivery():
    async def asked_late():
        async with embedded.open(":memory:") as streams:
            stream = await streams.create_stream(StreamConfig(name="S", subjects=["S.>"]))
            consumer = await stream.create_consumer(ConsumerConfig(durable="c", filter_subject="S.a"))
            for token in "abaa":
                await streams.publish(f"S.{token}")
            msg = await consumer.next()
            await stream.purge()
            return msg.metadata.num_pending

    assert asyncio.run(asked_late()) == 2
