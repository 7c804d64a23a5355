"""Ids are remembered per stream for its window, also when their message is gone."""

import asyncio
import random
from datetime import timedelta

from headrace import embedded
from headrace.streams.config import PurgeOptions, StreamConfig, StreamMessage
from headrace.testing.virtual import virtual_time

CONFIG = StreamConfig(name="S", subjects=["s.>"], duplicate_window=2)


@virtual_time
async def test_within_and_after_the_window():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(CONFIG)
        assert not (await streams.publish("s.a", msg_id="x")).duplicate
        await asyncio.sleep(1.9)
        again = await streams.publish("s.b", msg_id="x")
        assert (again.duplicate, again.sequence) == (True, 1)
        await asyncio.sleep(0.2)
        later = await streams.publish("s.a", msg_id="x")
        assert (later.duplicate, later.sequence) == (False, 2)


@virtual_time
async def test_the_default_is_shown():
    async with embedded.open(":memory:") as streams:
        for age, window in ((None, 120), (60, 60), (600, 120)):
            given = StreamConfig(name="S", subjects=["s.>"], max_age=age)
            stream = await streams.create_or_update_stream(given)
            assert stream.cached_info.config.duplicate_window == timedelta(seconds=window)
            await streams.create_stream(given)
            await streams.create_stream(stream.cached_info.config)


@virtual_time
async def test_deleted_and_purged_messages_are_still_known():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(CONFIG)
        await streams.publish("s.a", msg_id="deleted")
        await streams.publish("s.a", msg_id="purged")
        await stream.delete_msg(1)
        await stream.purge(PurgeOptions())
        for sequence, msg_id in enumerate(("deleted", "purged"), 1):
            ack = await streams.publish("s.a", msg_id=msg_id)
            assert (ack.duplicate, ack.sequence) == (True, sequence)


@virtual_time
async def test_within_one_batch_in_any_order_of_ids():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(CONFIG)
        ids = ["b", "a", "b", "c", "a"]
        acks = await streams.publish_many([StreamMessage("s.a", b"", msg_id=each) for each in ids])
        assert [(ack.sequence, ack.duplicate) for ack in acks] == [
            (1, False), (2, False), (1, True), (3, False), (2, True),
        ]  # fmt: skip


def test_after_reopening(tmp_path):
    async def publish(msg_id):
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(CONFIG)
            return await streams.publish("s.a", msg_id=msg_id)

    assert asyncio.run(publish("x")).sequence == 1
    assert asyncio.run(publish("x")).duplicate


@virtual_time
async def test_old_ids_are_forgotten():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(CONFIG)
        for block in range(6):
            messages = [StreamMessage("s.a", b"", msg_id=f"{hash((block, at)):x}") for at in range(1000)]
            await streams.publish_many(messages)
            await asyncio.sleep(3)
        count = await streams._store.streams.call(lambda db: db.execute("SELECT count(*) FROM dedup_1").fetchone()[0])
        assert count < 3500


@virtual_time
async def test_random_ids_do_not_pile_up():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(CONFIG)
        numbers = random.Random(7)
        for _ in range(40):
            batch = [StreamMessage("s.a", msg_id=numbers.randbytes(8).hex()) for _ in range(100)]
            await streams.publish_many(batch)
            await asyncio.sleep(0.2)
        assert await ids_in(streams) <= 1.5 * 1_000 + 200, "ten batches are in a window"
        await asyncio.sleep(4)
        assert await ids_in(streams) == 0


async def ids_in(streams):
    def count(connection):
        return connection.execute("SELECT count(*) FROM dedup_1").fetchone()[0]

    return await streams._room.read(count)
