"""Reading a consumer of a real server: what is asked for, what is settled, what is left behind."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import ACK, RELEASE, Nak
from headrace.core.errors import (
    AlreadySettledError,
    ClosedError,
    ConfigError,
    UnsupportedError,
    UsageError,
)
from headrace.core.message import Message
from headrace.streams.broker import StreamBroker
from headrace.streams.config import AckPolicy, ConsumerConfig, PriorityPolicy
from headrace.streams.errors import (
    ConsumerDeletedError,
    IteratorClosedError,
    MaxBytesExceededError,
    NoHeartbeatError,
    NoMessagesError,
    NotStreamMessageError,
    PullRejectedError,
    StreamError,
)
from headrace.streams.fetch import FetchReason
from headrace.streams.options import PullOptions, StreamMessage
from headrace.streams.session import SessionOptions
from headrace.testing.nats import NatsServer
from tests.integration.jetstream.consuming import (
    PATIENCE,
    bodies,
    durable,
    fill,
    nobody_waits,
    run,
    somebody_waits,
    stream_of,
    until,
)


@pytest.fixture(scope="module")
def server():
    with NatsServer(config="feature_flags { js_ack_fc_v2: true }") as running:
        yield running


@pytest.fixture(scope="module")
def plain():
    with NatsServer() as running:
        yield running


def test_fetch_full_short_empty(plain):
    async def story():
        async with stream_of(plain.url, 5) as (_, stream):
            consumer = await durable(stream)
            batch = consumer.fetch(3)
            assert bodies(await batch) == [0, 1, 2]
            assert batch.reason is FetchReason.FILLED
            batch = consumer.fetch(3, max_wait=0.3)
            assert bodies(await batch) == [3, 4]
            assert batch.reason is FetchReason.EXPIRED
            batch = consumer.fetch_no_wait(3)
            assert await batch == []
            assert batch.reason is FetchReason.NO_MESSAGES
            with pytest.raises(NoMessagesError):
                await consumer.next(max_wait=0.2)
            await nobody_waits(consumer)

    run(story())


def test_fetch_bytes_ends_before_the_message_that_goes_over(plain):
    async def story():
        async with stream_of(plain.url, 5) as (_, stream):
            consumer = await durable(stream)
            one = (await consumer.fetch(1))[0]
            size = len(one.subject) + len(one.reply) + len(one.data)
            batch = consumer.fetch_bytes(2 * size + size // 2, max_wait=5)
            assert bodies(await batch) == [1, 2]
            assert batch.reason is FetchReason.MAX_BYTES
            batch = consumer.fetch_bytes(10, max_wait=5)
            assert await batch == []
            assert batch.reason is FetchReason.MAX_BYTES

    run(story())


@pytest.mark.parametrize("options", [{"max_messages": 7}, {"max_bytes": 700}, {"max_messages": 9, "max_bytes": 700}])
def test_messages_come_all_once_whatever_bounds_them(plain, options):
    async def story():
        async with stream_of(plain.url, 100) as (js, stream):
            consumer = await durable(stream, max_ack_pending=None)
            got = []
            async with consumer.messages(PullOptions(**options)) as messages:
                async for msg in messages:
                    await msg.ack()
                    got.append(int(msg.data))
                    if len(got) == 100:
                        await fill(js, stream, 50, 100)
                    if len(got) == 150:
                        break
            assert got == list(range(150))
            assert (await consumer.info()).num_ack_pending == 0
            await nobody_waits(consumer)

    run(story())


def test_a_message_larger_than_max_bytes_ends_it(plain):
    async def story():
        async with stream_of(plain.url, 1) as (js, stream):
            consumer = await durable(stream)
            await js.publish(f"{stream.name}.x", b"x" * 5000)
            async with consumer.messages(PullOptions(max_bytes=1000)) as messages:
                await (await messages.next()).ack()
                with pytest.raises(MaxBytesExceededError, match="1000"):
                    await messages.next(timeout=PATIENCE)

    run(story())


def test_stop_after_is_exact(plain):
    async def story():
        async with stream_of(plain.url, 30) as (_, stream):
            consumer = await durable(stream)
            got = []
            async with consumer.messages(PullOptions(max_messages=4, stop_after=10)) as messages:
                async for msg in messages:
                    await msg.ack()
                    got.append(int(msg.data))
                await messages.wait_closed()
            assert got == list(range(10))
            info = await consumer.info()
            assert (info.num_pending, info.num_ack_pending, info.num_waiting) == (20, 0, 0)

    run(story())


def test_acks_leave_with_the_message_of_either_version(server):
    """The server speaks the long form of acknowledgement subjects."""

    async def story():
        async with stream_of(server.url, 4) as (js, stream):
            consumer = await durable(stream)
            acked, naked, kept, ended = await consumer.fetch(4)
            assert len(acked.reply.split(".")) >= 11, acked.reply
            assert acked.metadata.consumer == "c"
            assert acked.metadata.stream == stream.name
            await acked.ack()
            await kept.in_progress()
            await kept.double_ack()
            await ended.term("no good")
            await naked.nak()
            (again,) = await consumer.fetch(1)
            assert (again.data, again.metadata.num_delivered) == (b"1", 2)
            await again.double_ack()
            info = await consumer.info()
            assert (info.num_ack_pending, info.ack_floor.stream) == (0, 4)
            async with StreamBroker(js).subscribe(f"{stream.name}.y", SubscribeOptions(group="g")) as subscription:
                await StreamBroker(js).publish(Message(topic=f"{stream.name}.y", body=b"1"))
                (delivery,) = await subscription.pull(1, PATIENCE)
                delivery.ack()
                await subscription.flush()
                assert await subscription.backlog() == 0

    run(story())


def test_what_is_settled_is_settled_once_and_reasons_are_one_line(plain):
    async def story():
        async with stream_of(plain.url, 2) as (js, stream):
            consumer = await durable(stream)
            msg, other = await consumer.fetch(2)
            with pytest.raises(ConfigError, match="reason"):
                await msg.term("one\r\ntwo")
            assert not msg.settled
            first = asyncio.create_task(msg.double_ack())
            await asyncio.sleep(0)
            with pytest.raises(AlreadySettledError):
                await msg.double_ack()
            await first
            for again in (msg.ack, msg.nak, msg.term, msg.in_progress, msg.double_ack):
                with pytest.raises(AlreadySettledError):
                    await again()
            await js.delete_consumer(stream.name, "c")
            with pytest.raises(ConsumerDeletedError):
                await other.double_ack()
            assert not other.settled

    run(story())


def test_stop_hands_back_in_order_and_at_once(plain):
    """What was on its way when it stopped too: else it would be gone for an ack wait."""

    async def story():
        async with stream_of(plain.url, 300) as (js, stream):
            consumer = await durable(stream, ack_wait=600)
            for rounds in range(5):
                publishing = asyncio.create_task(fill(js, stream, 100, 300 + 100 * rounds))
                async with consumer.messages(PullOptions(max_messages=60)) as messages:
                    seen = 0
                    async for msg in messages:
                        await msg.ack()
                        seen += 1
                        if seen == 70:
                            break
                await publishing
                assert (await consumer.info()).num_waiting == 0
            left = 800 - 5 * 70
            rest = await consumer.fetch(left, max_wait=PATIENCE)
            assert len(rest) == left
            for msg in rest:
                await msg.ack()
            assert await consumer.fetch_no_wait(1) == []

    run(story())


def test_naks_come_back_in_the_order_of_the_buffer(plain):
    async def story():
        async with stream_of(plain.url, 6) as (_, stream):
            consumer = await durable(stream)
            async with consumer.fetch(10, max_wait=PATIENCE) as batch:
                async for msg in batch:
                    await msg.ack()
                    break
            again = await consumer.fetch(5)
            assert bodies(again) == [1, 2, 3, 4, 5]
            assert {msg.metadata.num_delivered for msg in again} == {2}

    run(story())


def test_a_drain_hands_out_all_it_has(plain):
    async def story():
        async with stream_of(plain.url, 40) as (_, stream):
            consumer = await durable(stream)
            got = []
            messages = consumer.messages(PullOptions(max_messages=10))
            async for msg in messages:
                await msg.ack()
                got.append(int(msg.data))
                if len(got) == 15:
                    await messages.drain()
            assert got == list(range(len(got)))
            assert len(got) < 40
            await messages.wait_closed()
            info = await consumer.info()
            assert (info.num_ack_pending, info.num_pending, info.num_waiting) == (0, 40 - len(got), 0)

    run(story())


@pytest.mark.parametrize("kind", ["fetch", "messages", "consume", "session", "subscription"])
def test_parked_pull_dies_with_its_session(plain, kind):
    async def story():
        async with stream_of(plain.url) as (js, stream):
            if kind == "subscription":
                async with StreamBroker(js).subscribe(f"{stream.name}.x", SubscribeOptions(group="g")) as subscription:
                    task = asyncio.create_task(subscription.pull(5, PATIENCE))
                    consumer = subscription.consumer
                    await somebody_waits(consumer)
                    task.cancel()
                await nobody_waits(consumer)
                return
            consumer = await durable(stream)
            if kind == "fetch":
                task = asyncio.create_task(_all(consumer.fetch(5)))
                await somebody_waits(consumer)
                task.cancel()
                await asyncio.wait([task])
            elif kind == "session":
                session = consumer.session(SessionOptions(max_messages=5, prefetch=4))
                task = asyncio.create_task(session.pull(1, PATIENCE))
                await somebody_waits(consumer)
                with pytest.raises(UsageError):
                    await session.pull(1, 0)
                await session.aclose()
                assert await task == []
            else:
                reader = consumer.messages() if kind == "messages" else consumer.consume(lambda msg: None)
                async with reader:
                    waiting = asyncio.create_task(reader.next() if kind == "messages" else asyncio.sleep(0))
                    await somebody_waits(consumer)
                await asyncio.gather(waiting, return_exceptions=True)
            await nobody_waits(consumer)
            await fill(js, stream, 3)  # nobody eats them
            assert bodies(await consumer.fetch(3)) == [0, 1, 2]

    run(story())


async def _all(batch):
    return await batch


@pytest.mark.parametrize("stream_too", [False, True])
@pytest.mark.parametrize("kind", ["fetch", "messages", "consume"])
def test_consumer_deleted_meanwhile(plain, kind, stream_too):
    async def story():
        async with stream_of(plain.url) as (js, stream):
            consumer = await durable(stream)
            told = []
            if kind == "fetch":
                reading = asyncio.create_task(_all(consumer.fetch(5)))
            elif kind == "messages":
                messages = consumer.messages(error_handler=lambda context, error: told.append(error))
                reading = asyncio.create_task(messages.next())
            else:
                context = consumer.consume(lambda msg: None, error_handler=lambda context, error: told.append(error))
                reading = asyncio.create_task(context.wait_closed())
            await somebody_waits(consumer)
            await (js.delete_stream(stream.name) if stream_too else stream.delete_consumer("c"))
            with pytest.raises(ConsumerDeletedError):
                await asyncio.wait_for(reading, PATIENCE)
            assert [type(error) for error in told] == [ConsumerDeletedError] * (kind != "fetch")
            if kind == "messages":
                with pytest.raises(IteratorClosedError):
                    await messages.next()
            with pytest.raises(ConsumerDeletedError):  # nobody answers for it at all
                await consumer.fetch(1)
            with pytest.raises(ConsumerDeletedError):
                await consumer.messages().next(timeout=PATIENCE)

    run(story())


def test_max_waiting_is_silent_and_the_heartbeat_shows_it(plain):
    async def story():
        async with stream_of(plain.url) as (_, stream):
            consumer = await durable(stream, max_waiting=1)
            async with consumer.messages() as first, consumer.messages(PullOptions(heartbeat=0.5)) as second:
                waiting = asyncio.create_task(first.next())
                await somebody_waits(consumer)
                with pytest.raises(NoHeartbeatError):
                    await second.next(timeout=PATIENCE)
                first.stop()
                with pytest.raises(IteratorClosedError):
                    await waiting
                later = asyncio.create_task(second.next())  # it goes on
                await somebody_waits(consumer)
                later.cancel()
            with pytest.raises(PullRejectedError) as refused:  # without a heartbeat the server says so
                async with consumer.messages() as first:
                    waiting = asyncio.create_task(first.next())
                    await somebody_waits(consumer)
                    await consumer.fetch(1, max_wait=3)
            assert refused.value.code == 409
            await asyncio.gather(waiting, return_exceptions=True)

    run(story())


def test_a_blocked_loop_is_no_missing_heartbeat(plain):
    async def story():
        async with stream_of(plain.url) as (js, stream):
            consumer = await durable(stream)
            told = []
            async with consumer.messages(
                PullOptions(heartbeat=0.5, expires=PATIENCE), error_handler=lambda context, error: told.append(error)
            ) as messages:
                waiting = asyncio.create_task(messages.next())
                await somebody_waits(consumer)
                for _ in range(2):
                    time.sleep(1.6)
                    await asyncio.sleep(0.3)
                await fill(js, stream, 1)
                await (await asyncio.wait_for(waiting, PATIENCE)).ack()
            assert told == []

    run(story())


def test_limits_of_pulls_are_refused_for_good(plain):
    async def story():
        async with stream_of(plain.url) as (_, stream):
            consumer = await durable(stream, max_request_batch=5)
            with pytest.raises(PullRejectedError, match="MaxRequestBatch"):
                await consumer.fetch(6)
            with pytest.raises(PullRejectedError, match="MaxRequestBatch"):
                await consumer.messages().next(timeout=PATIENCE)
            assert await consumer.fetch(5, max_wait=0.2) == []

    run(story())


def test_without_acks_nothing_is_held_and_settling_only_marks(plain):
    async def story():
        async with stream_of(plain.url, 5) as (_, stream):
            consumer = await durable(stream, ack_policy=AckPolicy.NONE)
            session = consumer.session(SessionOptions(max_messages=5, prefetch=4))
            (msg,) = await session.pull(1, PATIENCE)
            assert session.alive(msg)
            assert session.held == 0
            await msg.in_progress()
            await msg.double_ack()
            assert msg.settled
            session.keep()
            await session.flush()
            await session.aclose()
            assert await consumer.fetch(1, max_wait=0.2) == []  # what was buffered is gone: delivered is done

    run(story())


def test_an_ack_of_all_settles_what_is_held_below(plain):
    async def story():
        async with stream_of(plain.url, 5) as (_, stream):
            consumer = await durable(stream, ack_policy=AckPolicy.ALL)
            session = consumer.session(SessionOptions(max_messages=5, prefetch=4))
            got = await session.pull(5, PATIENCE)
            while len(got) < 5:
                got += await session.pull(5 - len(got), PATIENCE)
            assert session.held == 5
            session.settle(got[3], ACK)
            assert session.held == 1
            await session.flush()
            assert (await consumer.info()).ack_floor.stream == 4
            await session.aclose()

    run(story())


def test_keep_and_extend_begin_the_ack_wait_anew(plain):
    async def story():
        async with stream_of(plain.url, 4) as (_, stream):
            consumer = await durable(stream, ack_wait=1.0)
            session = consumer.session(SessionOptions(max_messages=4, prefetch=3))
            (msg,) = await session.pull(1, PATIENCE)
            for _ in range(4):
                await asyncio.sleep(0.6)
                session.keep()
            assert session.alive(msg)
            assert (await consumer.info()).num_redelivered == 0
            session.settle(msg, ACK)
            assert session.late_settles == 0
            (late,) = await session.pull(1, PATIENCE)
            assert late.metadata.num_delivered == 1
            await asyncio.sleep(1.1)
            assert not session.alive(late)
            session.settle(late, ACK)
            assert session.late_settles == 1
            await session.aclose()

    run(story())


def test_flush_leaves_a_delayed_nak_its_delay(plain):
    """The probe behind the outcomes stands for no message: one for a nak'ed message would begin its ack wait anew."""

    async def story():
        async with stream_of(plain.url, 1) as (_, stream):
            consumer = await durable(stream, ack_wait=600)
            session = consumer.session(SessionOptions())
            (msg,) = await session.pull(1, PATIENCE)
            session.settle(msg, Nak(0.5))
            await session.flush()
            await session.aclose()
            assert bodies(await consumer.fetch(1, max_wait=PATIENCE)) == [0]

    run(story())


def test_what_is_held_for_nobody_is_forgotten(plain):
    """A reader that never settles does not keep every message for ever."""

    async def story():
        async with stream_of(plain.url) as (js, stream):
            consumer = await durable(stream, ack_wait=0.3, max_ack_pending=None)
            await js.publish_many([_message(stream, number) for number in range(1500)])
            session = consumer.session(SessionOptions(max_messages=1500, prefetch=1499))
            seen = 0
            async with asyncio.timeout(PATIENCE):
                while seen < 4500:
                    seen += len(await session.pull(1500, 1.0))
            assert session.held <= 3100
            await session.aclose()

    run(story())


def _message(stream, number):
    return StreamMessage(f"{stream.name}.x", b"%d" % number)


def test_what_somebody_else_sends_to_the_inbox_cannot_be_settled(plain):
    async def story():
        async with stream_of(plain.url) as (js, stream):
            consumer = await durable(stream)
            session = consumer.session(SessionOptions(max_messages=4, prefetch=3))
            pulling = asyncio.create_task(session.pull(4, PATIENCE))
            await somebody_waits(consumer)
            inbox = session._inbox._replies.decode() % 1
            js.connection.publish(inbox, b"forged", reply="JS.ACK.forged")
            (msg,) = await pulling
            assert (msg.data, msg.reply) == (b"forged", "JS.ACK.forged")
            for call in (msg.ack, msg.nak, msg.in_progress, msg.double_ack):
                with pytest.raises(NotStreamMessageError):
                    await call()
            with pytest.raises(NotStreamMessageError):
                _ = msg.metadata
            js.connection.publish(inbox, b"status with a body", headers=None)
            (msg,) = await session.pull(1, PATIENCE)
            assert msg.data == b"status with a body"
            await session.aclose()

    run(story())


def test_a_closed_connection_ends_every_reader(plain):
    async def story():
        async with stream_of(plain.url, 1) as (js, stream):
            consumer = await durable(stream)
            messages = consumer.messages()
            (msg, waiting) = (await messages.next(), asyncio.create_task(messages.next()))
            context = consumer.consume(lambda msg: None)
            await somebody_waits(consumer)
            await js.connection.aclose()
            with pytest.raises(ClosedError):
                await asyncio.wait_for(waiting, PATIENCE)
            with pytest.raises(ClosedError):
                await asyncio.wait_for(context.wait_closed(), PATIENCE)
            with pytest.raises(ClosedError):
                await consumer.fetch(1)
            await msg.ack()  # too late, and no error: it comes again

    run(story())


def test_cancelling_next_loses_nothing(plain):
    async def story():
        async with stream_of(plain.url) as (js, stream):
            consumer = await durable(stream)
            got = []
            async with consumer.messages() as messages:
                for number in range(40):
                    waiting = asyncio.create_task(messages.next())
                    publishing = asyncio.create_task(fill(js, stream, 1, number))
                    for _ in range(number % 20):
                        await asyncio.sleep(0)
                    waiting.cancel()
                    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
                    got += [] if isinstance(outcome, BaseException) else [outcome]
                    await publishing
                while len(got) < 40:
                    got.append(await messages.next(timeout=PATIENCE))
            assert bodies(got) == list(range(40))

    run(story())


def test_pause_and_resume(plain):
    async def story():
        async with stream_of(plain.url, 2) as (_, stream):
            consumer = await durable(stream)
            with pytest.raises(ConfigError, match="until"):
                await consumer.pause(datetime(2099, 1, 1))
            await consumer.pause(datetime.now(UTC) + timedelta(hours=1))
            assert (await consumer.info()).paused
            async with consumer.messages(PullOptions(heartbeat=0.5)) as messages:
                with pytest.raises(NoMessagesError):
                    await messages.next(timeout=1.5)  # it beats, and gives nothing
                await consumer.resume()
                assert (await messages.next(timeout=PATIENCE)).data == b"0"

    run(story())


def test_reset_goes_back_to_the_ack_floor_or_to_a_sequence(plain):
    async def story():
        async with stream_of(plain.url, 5) as (_, stream):
            consumer = await durable(stream)
            first, *_ = await consumer.fetch(3)
            await first.double_ack()
            await consumer.reset()
            again = await consumer.fetch(2)
            assert (bodies(again), again[0].metadata.sequence.consumer) == ([1, 2], 1)
            await consumer.reset(4)
            assert bodies(await consumer.fetch(1)) == [3]
            with pytest.raises(ConfigError, match="sequence"):
                await consumer.reset(0)
            with pytest.raises(StreamError):
                await consumer.unpin("nobody")
            with pytest.raises(UnsupportedError, match=r"RESET needs nats-server 99\.0"):
                await consumer._ask_newer("RESET", (99, 0), {})

    run(story())


def test_groups_are_asked_for_where_there_are_any_and_nowhere_else(plain):
    async def story():
        async with stream_of(plain.url) as (_, stream):
            consumer = await durable(stream)
            with pytest.raises(ConfigError, match="group"):
                consumer.messages(PullOptions(group="g"))
            grouped = await stream.create_consumer(
                ConsumerConfig(durable="g", priority_groups=["g"], priority_policy=PriorityPolicy.OVERFLOW)
            )
            with pytest.raises(ConfigError, match="group"):
                grouped.messages()
            with pytest.raises(ConfigError, match="group"):
                grouped.messages(PullOptions(group="other"))

    run(story())


def test_one_client_is_pinned_until_it_is_unpinned(plain):
    async def story():
        async with stream_of(plain.url) as (js, stream):
            consumer = await stream.create_consumer(
                ConsumerConfig(
                    durable="p", priority_groups=["g"], priority_policy=PriorityPolicy.PINNED_CLIENT, pinned_ttl=60
                )
            )
            told = []
            options = PullOptions(group="g", max_messages=1)
            readers = [
                consumer.messages(options, error_handler=lambda context, error: told.append(type(error).__name__))
                for _ in range(2)
            ]
            got = []

            async def read(number):
                async for msg in readers[number]:
                    await msg.ack()
                    got.append((number, int(msg.data)))

            tasks = [asyncio.create_task(read(number)) for number in range(2)]

            async def has(count):
                async def holds():
                    return len(got) >= count

                await until(holds, f"{count} came")

            await somebody_waits(consumer)
            await fill(js, stream, 10)
            await has(10)
            assert len({number for number, _ in got}) == 1
            assert (await consumer.info()).priority_groups[0].pinned_client_id
            for _ in range(20):
                await consumer.unpin("g")
                await fill(js, stream, 1)
                await has(len(got))
            await has(30)
            assert set(told) <= {"PinLostError"}
            for reader in readers:
                reader.stop()
            await asyncio.gather(*tasks)

    run(story())


def test_a_look_takes_what_is_there(plain):
    async def story():
        async with stream_of(plain.url, 3) as (_, stream):
            consumer = await durable(stream)
            session = consumer.session(SessionOptions())
            got = await session.pull(2, 0)
            got += await session.pull(2, 0)
            got += await session.pull(2, 0)
            assert await session.pull(2, 0) == []
            assert bodies(got) == [0, 1, 2]
            assert (await consumer.info()).num_waiting == 0
            session.settle(got[0], RELEASE)
            await session.aclose()

    run(story())


def test_a_look_waits_for_what_a_look_before_it_has_asked_for(plain):
    """Large messages come one by one: the first is handed out while the others are on their way."""

    async def story():
        async with stream_of(plain.url) as (js, stream):
            for _ in range(6):
                await js.publish(f"{stream.name}.x", bytes(700_000))
            session = (await durable(stream)).session(SessionOptions())
            got = []
            while found := await session.pull(6 - len(got) or 1, 0):
                got += found
            assert len(got) == 6
            await session.aclose()

    run(story())


def test_a_look_that_the_server_parks_is_given_up(plain):
    """At `max_ack_pending` there is no answer; what is handed back later is another's."""

    async def story():
        async with stream_of(plain.url, 3) as (_, stream):
            consumer = await durable(stream, max_ack_pending=2)
            session, other = consumer.session(SessionOptions()), consumer.session(SessionOptions())
            got = await session.pull(2, PATIENCE)
            assert await session.pull(1, 0) == []
            session.settle(got[0], RELEASE)
            assert bodies(await other.pull(1, PATIENCE)) == [0]
            session.settle(got[1], RELEASE)
            assert bodies(await session.pull(1, PATIENCE)) == [1], "and it still reads"
            await session.aclose()
            await other.aclose()

    run(story())
