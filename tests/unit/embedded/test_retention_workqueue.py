"""Gone at the first ack or term; who may consume (3.5.8, 3.5.9)."""

import pytest

from headrace import embedded
from headrace.streams.config import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy
from headrace.streams.errors import ConsumerConfigError
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, stream_of

WORKQUEUE = RetentionPolicy.WORKQUEUE


@virtual_time
async def test_gone_once_acked():
    async with stream_of(4, retention=WORKQUEUE) as (_, stream):
        consumer, session = await reader(stream)
        messages = await pull(session)
        await messages[0].ack()
        await messages[1].term()
        await messages[2].nak()
        assert (await stream.info()).state.messages == 2
        (again,) = await pull(session)
        await again.ack()
        state = (await stream.info()).state
        assert (state.messages, state.first_sequence) == (1, 4)
        assert (await consumer.info()).num_ack_pending == 1


@virtual_time
async def test_who_may_consume():
    async with stream_of(retention=WORKQUEUE) as (_, stream):
        for config, code in (
            ({"ack_policy": AckPolicy.ALL}, 10098),
            ({"ack_policy": AckPolicy.NONE}, 10084),
            ({"deliver_policy": DeliverPolicy.NEW}, 10101),
        ):
            with pytest.raises(ConsumerConfigError) as refused:
                await stream.create_consumer(ConsumerConfig(durable="c", **config))
            assert refused.value.err_code == code
        await stream.create_consumer(ConsumerConfig(durable="a", filter_subject="s.a.>"))
        with pytest.raises(ConsumerConfigError) as refused:
            await stream.create_consumer(ConsumerConfig(durable="b"))
        assert refused.value.err_code == 10099
        with pytest.raises(ConsumerConfigError) as refused:
            await stream.create_consumer(ConsumerConfig(durable="b", filter_subject="s.*.x"))
        assert refused.value.err_code == 10100
        await stream.create_consumer(ConsumerConfig(durable="b", filter_subject="s.b"))


@virtual_time
async def test_crash_between_ack_and_removal_is_repaired(tmp_path):
    async with stream_of(3, path=tmp_path / "d", retention=WORKQUEUE) as (streams, stream):
        _, session = await reader(stream)
        streams._room.consumers.shared.remove = lambda stream, sequences: None
        for message in (await pull(session))[:2]:
            await message.ack()
        await session.flush()
        assert len(await stream.read()) == 3
    async with embedded.open(tmp_path / "d") as streams:
        stream = await streams.stream("S")
        assert [message.sequence for message in await stream.read()] == [3]


@virtual_time
async def test_other_filters_never_lose_what_was_passed_over(tmp_path):
    async with stream_of(path=tmp_path / "d", retention=WORKQUEUE) as (streams, stream):
        for subject in ("s.a", "s.b"):
            await streams.publish(subject, b"")
        _, session = await reader(stream, filter_subject="s.b")
        for message in await pull(session):
            await message.ack()
        await session.flush()
        await stream.update_consumer(ConsumerConfig(durable="c", filter_subject="s.a"))
    async with embedded.open(tmp_path / "d") as streams:
        assert [message.sequence for message in await (await streams.stream("S")).read()] == [1]


@virtual_time
async def test_a_filter_beside_a_consumer_of_all_overlaps():
    async with stream_of(retention=WORKQUEUE) as (_, stream):
        await stream.create_consumer(ConsumerConfig(durable="a"))
        for filters, code in (((), 10099), (("s.b",), 10100)):
            with pytest.raises(ConsumerConfigError) as refused:
                await stream.create_consumer(ConsumerConfig(durable="b", filter_subjects=filters))
            assert refused.value.err_code == code
