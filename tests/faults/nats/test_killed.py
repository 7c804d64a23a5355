"""kill -9 of the server, again and again: what was acknowledged is there, and every kind of reader goes on."""

import asyncio
import random

import pytest

from headrace.core.errors import PublishError
from headrace.testing.nats import NatsServer
from tests.faults.nats.scene import READERS, SUBJECT, made, on_a_loop, opened, parked, reading, stored


@pytest.mark.parametrize("kind", READERS)
@on_a_loop
async def test_kill9_with_parked_pull(kind):
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            async with reading(js, kind) as reader:
                for turn in range(3):
                    await js.publish(SUBJECT, b"%d" % turn, msg_id=f"{turn}")
                    await reader.until(turn + 1)
                    await parked(js, kind)
                    server.kill()
                    await asyncio.sleep(0.1)  # it is missed, and looked for
                    server.start()
                await js.publish(SUBJECT, b"3")
                await reader.until(4)
                if kind == "ordered":
                    assert reader.bodies == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("kind", READERS)
@on_a_loop
async def test_a_server_that_is_away_for_long_is_waited_for(kind):
    """Longer than two heartbeats, and than a pull of these readers lasts."""
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            async with reading(js, kind) as reader:
                await parked(js, kind)
                server.kill()
                await asyncio.sleep(2.2)
                server.start()
                await js.publish(SUBJECT, b"0")
                await reader.until(1)


async def publish_on(js, acknowledged, numbers):
    """Publish without end, each with an id; write down what was acknowledged."""
    while True:
        body = b"%d" % next(numbers)
        try:
            await js.publish(SUBJECT, body, msg_id=body.decode())
        except PublishError:
            continue  # it may be stored, and need not
        acknowledged.append(body)


async def kill_rounds(kind, rounds):
    """So many kills at any moment of publishing and reading; what was acknowledged, what is stored, what was read."""
    chance, acknowledged, numbers = random.Random(kind), [], iter(range(1 << 60))
    with NatsServer() as server:
        async with opened(server) as js:
            stream = await made(js)
            async with reading(js, kind) as reader:
                await parked(js, kind)
                publishers = [asyncio.create_task(publish_on(js, acknowledged, numbers)) for _ in range(8)]
                for _ in range(rounds):
                    await asyncio.sleep(chance.random() * 0.1)
                    server.kill()
                    server.start()
                    before = len(acknowledged)
                    async with asyncio.timeout(60):
                        while len(acknowledged) < before + 20:
                            await asyncio.sleep(0.002)
                for publisher in publishers:
                    publisher.cancel()
                await asyncio.gather(*publishers, return_exceptions=True)
                everything = await stored(stream)
                await reader.until_all(everything)
            return acknowledged, everything, reader.bodies


def judged(kind, acknowledged, everything, read):
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= set(everything), "acknowledged, and lost"
    assert len(everything) == len(set(everything)), "stored twice under one id"
    if kind == "ordered":
        assert read == everything


@pytest.mark.parametrize("kind", READERS)
def test_restart_loses_nothing_acked(kind):
    judged(kind, *asyncio.run(kill_rounds(kind, 3)))


@pytest.mark.chaos
@pytest.mark.parametrize("kind", READERS)
def test_restart_loses_nothing_acked_many_times(kind, rounds, in_ci):
    """As many kills as rounds were asked for, for each kind; in CI 100."""
    kills = rounds // 2 if in_ci else rounds
    acknowledged, everything, read = asyncio.run(kill_rounds(kind, kills))
    again = len(read) - len(set(read))
    print(f"{kind}: {kills} kills, {len(acknowledged)} acknowledged, {len(everything)} stored, {again} read again")
    judged(kind, acknowledged, everything, read)
