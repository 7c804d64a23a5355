"""Three servers whose leaders move, and die, under load: nothing acknowledged is lost, every reader goes on."""

import asyncio
import random

import pytest

from headrace.core.errors import PublishError
from headrace.streams import ConsumerConfig, StreamConfig
from headrace.testing.nats import NatsCluster
from tests.faults.nats.scene import ACK_WAIT, READERS, SUBJECT, on_a_loop, opened, parked, reading, stored

KINDS = ("messages", "ordered")


async def publish(js, acknowledged, enough):
    number = 0
    while not enough.is_set():
        number += 1
        body = b"%d" % number
        try:
            await js.publish(SUBJECT, body, msg_id=body.decode())
        except PublishError:
            await asyncio.sleep(0.01)
        else:
            acknowledged.append(body)
        await asyncio.sleep(0.001)


async def progress(acknowledged, count=50):
    """So many more were acknowledged; elections take seconds."""
    wanted = len(acknowledged) + count
    async with asyncio.timeout(60):
        while len(acknowledged) < wanted:
            await asyncio.sleep(0.01)


async def moved(kind, disturb):
    """`disturb(cluster, progress)` beside a publisher and a reader; what was acknowledged, stored and read."""
    acknowledged, enough = [], asyncio.Event()
    with NatsCluster() as cluster:
        async with opened(*cluster.servers) as js, opened(*cluster.servers, timeout=3) as other:
            stream = await js.create_stream(StreamConfig(name="S", subjects=["s.>"], replicas=3))
            await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=ACK_WAIT))
            async with reading(js, kind) as reader:
                await parked(js, kind)
                publisher = asyncio.create_task(publish(other, acknowledged, enough))
                await progress(acknowledged)
                await disturb(cluster, lambda: progress(acknowledged))
                enough.set()
                await publisher
                everything = await stored(stream)
                await reader.until_all(everything)
            return acknowledged, everything, reader.bodies


def judged(kind, acknowledged, everything, read):
    assert set(acknowledged) <= set(everything), "acknowledged, and lost"
    assert len(everything) == len(set(everything)), "stored twice under one id"
    if kind == "ordered":
        assert read == everything


async def step_down(cluster, progressed):
    for _ in range(3):
        await asyncio.to_thread(cluster.step_down, "S")
        await progressed()


async def kill_leader(cluster, progressed):
    leader = await asyncio.to_thread(cluster.leader_of, "S")
    leader.kill()
    await progressed()
    leader.start()
    await asyncio.to_thread(cluster.wait_ready)
    await asyncio.to_thread(cluster.wait_current, "S")
    await progressed()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("disturb", [step_down, kill_leader])
@pytest.mark.parametrize("kind", KINDS)
def test_leader_moved_under_load(kind, disturb):
    judged(kind, *asyncio.run(moved(kind, disturb)))


@pytest.mark.timeout(180)
@on_a_loop
async def test_consumer_leader_moved_under_load():
    async def disturb(cluster, progressed):
        for _ in range(3):
            await asyncio.to_thread(cluster.step_down, "S", "c")
            await progressed()

    judged("messages", *await moved("messages", disturb))


@pytest.mark.chaos
@pytest.mark.parametrize("kind", READERS)
def test_leaders_moved_many_times(kind, rounds):
    """One for forty rounds: each costs seconds of election."""
    chance, turns = random.Random(kind), max(1, rounds // 40)

    async def disturb(cluster, progressed):
        for _ in range(turns):
            await chance.choice([step_down_once, kill_leader])(cluster, progressed)

    acknowledged, everything, read = asyncio.run(moved(kind, disturb))
    print(f"{kind}: {turns} turns, {len(acknowledged)} acknowledged, {len(everything)} stored, {len(read)} read")
    judged(kind, acknowledged, everything, read)


async def step_down_once(cluster, progressed):
    await asyncio.to_thread(cluster.step_down, "S")
    await progressed()
