"""What an update may change, and the codes of what it may not (3.6.13)."""

import pytest

from headrace.streams.config import AckPolicy, ConsumerConfig, DeliverPolicy
from headrace.streams.errors import (
    ConsumerCreateError,
    ConsumerDoesNotExistError,
    ConsumerExistsError,
    ConsumerNotFoundError,
    StreamNotFoundError,
)
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, seqs, state, stream_of


@virtual_time
async def test_create():
    async with stream_of() as (streams, stream):
        config = ConsumerConfig(durable="c")
        await stream.create_consumer(config)
        await stream.create_consumer(config)
        with pytest.raises(ConsumerExistsError) as refused:
            await stream.create_consumer(ConsumerConfig(durable="c", max_deliver=3))
        assert refused.value.err_code == 10148
        with pytest.raises(ConsumerDoesNotExistError) as missing:
            await stream.update_consumer(ConsumerConfig(durable="d"))
        assert missing.value.err_code == 10149
        with pytest.raises(ConsumerNotFoundError):
            await stream.consumer("d")
        with pytest.raises(ConsumerNotFoundError):
            await stream.delete_consumer("d")
        with pytest.raises(StreamNotFoundError):
            await streams.create_consumer("T", config)
        assert [name async for name in stream.consumer_names()] == ["c"]
        assert [info.name async for info in stream.list_consumers()] == ["c"]


@virtual_time
async def test_defaults_are_shown():
    async with stream_of() as (_, stream):
        config = (await (await stream.create_consumer(ConsumerConfig())).info()).config
        assert (config.ack_wait.total_seconds(), config.max_waiting, config.max_ack_pending) == (30, 512, 1000)
        assert config.inactive_threshold.total_seconds() == 5
        assert config.name


@virtual_time
async def test_fixed_fields():
    async with stream_of() as (_, stream):
        await stream.create_consumer(ConsumerConfig(durable="c"))
        for change in ({"deliver_policy": DeliverPolicy.NEW}, {"ack_policy": AckPolicy.ALL}, {"max_waiting": 3}):
            with pytest.raises(ConsumerCreateError) as refused:
                await stream.update_consumer(ConsumerConfig(durable="c", **change))
            assert refused.value.err_code == 10012


@virtual_time
async def test_changes_apply():
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b", "s.a", "s.b", "s.a"):
            await streams.publish(subject, b"")
        consumer, session = await reader(stream, filter_subject="s.a", max_ack_pending=1)
        assert seqs(await pull(session)) == [1]
        assert (await consumer.info()).num_pending == 2
        await stream.update_consumer(
            ConsumerConfig(durable="c", filter_subject="s.b", max_ack_pending=5, max_deliver=4)
        )
        assert await state(consumer) == ((1, 1), (0, 0), 1, 0, 2)
        assert seqs(await pull(session)) == [2, 4]
        assert (await consumer.info()).config.max_deliver == 4
