"""A stream is indexed by subject from its second subject on, without a look at what came before."""

import random

import pytest

from headrace import embedded
from headrace.streams.config import ConsumerConfig, PurgeOptions, StreamConfig, StreamMessage
from headrace.streams.errors import MessageNotFoundError
from headrace.testing.virtual import virtual_time

CONFIG = StreamConfig(name="S", subjects=["s.>"])


async def publish(streams, stored, *subjects):
    acks = await streams.publish_many([StreamMessage(subject, b"x") for subject in subjects])
    stored.update({ack.sequence: subject for ack, subject in zip(acks, subjects, strict=True)})


async def compare(stream, stored):
    """Everything that is asked by subject against the plain list of what is stored."""
    for subject in ("s.a", "s.b", "s.c"):
        on = [sequence for sequence, each in sorted(stored.items()) if each == subject]
        assert [each.sequence for each in await stream.read(subject=subject)] == on
        try:
            found = (await stream.get_last_msg_for_subject(subject)).sequence
        except MessageNotFoundError:
            found = None
        assert found == max(on, default=None)
        middle = sum(stored) // max(len(stored), 1)
        behind = [sequence for sequence in on if sequence >= middle]
        assert [each.sequence for each in await stream.read(subject=subject, start=middle)] == behind
    both = [sequence for sequence, each in sorted(stored.items()) if each != "s.c"]
    consumer = await stream.create_consumer(ConsumerConfig(filter_subjects=["s.a", "s.b"]))
    assert (await consumer.info()).num_pending == len(both)
    got = [msg.metadata.sequence.stream for msg in await consumer.fetch_no_wait(1_000)]
    assert got == both
    await stream.delete_consumer(consumer.name)
    counts = (await stream.info(subject_filter=">")).state.subjects
    assert counts == {each: list(stored.values()).count(each) for each in set(stored.values())}


async def indexed(streams):
    read = streams._store.reader.call
    return await read(lambda connection: connection.execute("SELECT count(*) FROM subject_msg_1").fetchone()[0])


@virtual_time
async def test_the_second_subject_indexes_only_itself():
    async with embedded.open(":memory:") as streams:
        stream, stored = await streams.create_stream(CONFIG), {}
        await publish(streams, stored, *["s.a"] * 200)
        assert await indexed(streams) == 0
        await publish(streams, stored, "s.b")
        assert await indexed(streams) == 1
        await compare(stream, stored)
        await publish(streams, stored, "s.a", "s.c", "s.b", "s.a")
        assert await indexed(streams) == 5
        await compare(stream, stored)


@pytest.mark.parametrize("seed", range(6))
@virtual_time
async def test_whatever_goes_the_index_is_right(seed):
    chance = random.Random(seed)
    async with embedded.open(":memory:") as streams:
        stream, stored = await streams.create_stream(CONFIG), {}
        await publish(streams, stored, *["s.a"] * chance.randrange(40))
        for _ in range(12):
            await publish(streams, stored, *chance.choices(["s.a", "s.b", "s.c"], k=chance.randrange(1, 6)))
            for sequence in chance.sample(sorted(stored), k=len(stored) // 5):
                await stream.delete_msg(sequence)
                del stored[sequence]
            await compare(stream, stored)
        subject = chance.choice(["s.a", "s.b"])
        await stream.purge(PurgeOptions(subject=subject, keep=2))
        on = [sequence for sequence, each in sorted(stored.items()) if each == subject]
        for sequence in on[:-2]:
            del stored[sequence]
        await compare(stream, stored)
        await stream.purge()
        await compare(stream, {})
        assert await indexed(streams) == 0


@virtual_time
async def test_limits_per_subject_reach_back_before_the_index():
    async with embedded.open(":memory:") as streams:
        stream, stored = await streams.create_stream(CONFIG), {}
        await publish(streams, stored, *["s.a"] * 10, "s.b", "s.a")
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], max_messages_per_subject=3))
        await compare(stream, {9: "s.a", 10: "s.a", 11: "s.b", 12: "s.a"})
        await publish(streams, {}, "s.a")
        await compare(stream, {10: "s.a", 11: "s.b", 12: "s.a", 13: "s.a"})
