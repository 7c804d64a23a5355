"""Ten minutes of waiting cost nothing on a virtual loop."""

import asyncio

from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, stream_of


@virtual_time
async def test_ten_minutes():
    async with stream_of(1) as (_, stream):
        loop = asyncio.get_running_loop()
        _, session = await reader(stream, backoff=[60, 240, 300])
        start = loop.time()
        for delivery in range(1, 5):
            (message,) = await pull(session, 1, 1000)
            assert message.metadata.num_delivered == delivery
        assert 600 <= loop.time() - start <= 600.15
