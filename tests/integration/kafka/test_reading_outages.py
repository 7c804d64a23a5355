"""Reading while brokers are away: nothing is lost, nothing raises, and who is told to end does so in bounded time."""

import asyncio
import threading
import time

import pytest

from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.reading import KafkaPartitionOptions, KafkaSubscribeOptions
from headrace.kafka.stores import MemoryOffsetStore
from headrace.testing.kafka import KafkaServer
from tests.integration.kafka.raw import eventually, new_topic, run, working

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

BOUND = 28.0  # seconds: the last commit is waited for 10, the driver's farewell 10; a worker has 30 in all


def pollers():
    return [thread for thread in threading.enumerate() if thread.name == "headrace-kafka-poll"]


@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["group", "partition"])
def test_closing_while_all_brokers_are_away_ends_in_time(kafka_mock, kind):
    """What is finished could not be committed: the end says so, or not; it comes, and no thread is left."""
    kafka_mock.create_topic("orders", 2)
    kafka_mock.set_rebalance_delay(0.1)
    store = MemoryOffsetStore()

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            seen = []

            async def handler(delivery):
                seen.append(delivery.offset)
                if len(seen) == 10:
                    kafka_mock.down()

            await broker.publish_batch([Message(topic="orders", key=b"k0", body=b"x") for _ in range(9)])
            partition = (await broker.publish(Message(topic="orders", key=b"k0", body=b"x"))).partition
            options = {
                "group": {"group": "g", "subscribe": KafkaSubscribeOptions(commit_interval=60)},
                "partition": {
                    "subscribe": KafkaPartitionOptions(partition=partition, offset_store=store, commit_interval=60)
                },
            }
            worker = Worker(broker, "orders", handler, **options[kind])
            running = asyncio.create_task(worker.run())
            await eventually(lambda: len(seen) == 10)
            began = time.monotonic()
            await worker.shutdown()
            await asyncio.wait([running])
            took = time.monotonic() - began
            print(f"{kind}: ended after {took:.1f} s: {running.exception()!r}")
            assert took < BOUND
            kafka_mock.up()
            await eventually(lambda: pollers() == [])
            if kind == "partition":  # its checkpoint is no broker's
                assert running.exception() is None
                assert await store.load("orders", partition) == 10
            began = time.monotonic()
        assert time.monotonic() - began < BOUND

    run(story(), 100)


@pytest.mark.chaos
def test_a_frozen_broker_does_not_hold_up_the_end(kafka_installed):
    """The coordinator takes connections and answers nothing: the last commit is given up, and the thread ends.

    That it leaves may not have been heard either: the next member waits out its session then.
    """

    async def story(server):
        topic = new_topic(server)
        async with KafkaBroker(server.bootstrap) as broker:
            await broker.publish_batch([Message(topic=topic, key=b"k", body=b"x") for _ in range(5)])
            options = KafkaSubscribeOptions(commit_interval=60, session_timeout=6)
            worker = Worker(broker, topic, lambda delivery: None, group="g", subscribe=options)
            running = asyncio.create_task(worker.run())
            await eventually(lambda: worker.stats.acked == 5)
            server.pause()
            began = time.monotonic()
            await worker.shutdown()
            await asyncio.wait([running])
            took = time.monotonic() - began
            print(f"ended after {took:.1f} s: {running.exception()!r}")
            server.resume()
            await asyncio.to_thread(server.wait_ready)
            assert took < BOUND
            await eventually(lambda: pollers() == [])
            async with working(broker, topic, group="g") as found:
                receipt = await broker.publish(Message(topic=topic, key=b"k", body=b"last"))
                await eventually(lambda: b"last" in found.bodies)  # the frozen one may have taken the commit, or not
                assert receipt.offset == 5

    with KafkaServer(libs=kafka_installed) as server:
        run(story(server), 100)
