"""Publishing to a real server: acknowledgements, refusals, retries, time-outs, options."""

import asyncio
import gc
import itertools
import logging
import time
import weakref
from datetime import timedelta

import pytest

from headrace import jetstream
from headrace.core.broker import Expect
from headrace.core.errors import (
    BrokerTimeoutError,
    ClosedError,
    ConfigError,
    Fault,
    PublishError,
    PublishInterruptedError,
    PublishTimeoutError,
    UnsupportedError,
    UsageError,
)
from headrace.core.headers import Headers
from headrace.jetstream.options import JetStreamOptions
from headrace.nats.options import ConnectionOptions
from headrace.streams.config import DiscardPolicy, Rollup, StreamConfig, StreamMessage, StreamPublishOptions
from headrace.streams.errors import (
    InvalidSubjectError,
    MessageTooLargeError,
    MessageTtlError,
    NoStreamResponseError,
    RollupError,
    StreamFullError,
    TooManyPendingError,
    WrongLastMsgIdError,
    WrongLastSequenceError,
    WrongStreamError,
)
from headrace.streams.info import PubAck
from headrace.testing.nats import NatsServer, RecordingServer

NAMES = (f"PUB{number}" for number in itertools.count())
PATIENCE = 20


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


def story(server, tell, *, options=None, **config):
    """Run `tell(js, name)`: an open JetStream, and a stream of its own that covers its name in lower case."""

    async def run():
        async with jetstream.connect(server.url, options=options or JetStreamOptions(timeout=PATIENCE)) as js:
            name = next(NAMES)
            subject = name.lower()
            await js.create_stream(StreamConfig(name=name, subjects=[subject, f"{subject}.>"], **config))
            await tell(js, subject)

    asyncio.run(asyncio.wait_for(run(), 50))


async def stored(js, subject):
    stream = await js.stream(subject.upper())
    return await stream.read()


def test_an_acknowledgement(server):
    async def tell(js, subject):
        assert await js.publish(subject) == PubAck(subject.upper(), 1)
        assert await js.publish(f"{subject}.x", b"\0\xff", headers={"A": ["1", "ü"]}, msg_id="é 1") == PubAck(
            subject.upper(), 2
        )
        again = await js.publish_msg(StreamMessage(subject, b"other", msg_id="é 1"))
        assert again == PubAck(subject.upper(), 2, duplicate=True)
        first, second = await stored(js, subject)
        assert (first.data, first.headers) == (b"", Headers())
        assert (second.subject, second.data) == (f"{subject}.x", b"\0\xff")
        assert second.headers.items() == (("Nats-Msg-Id", "é 1"), ("A", "1"), ("A", "ü"))

    story(server, tell)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"expect": Expect(last=7)}, WrongLastSequenceError),
        ({"expect": Expect(last_for_topic=0)}, WrongLastSequenceError),
        ({"expect": Expect(last_for_topic=1), "expect_subject": "nothing.there"}, WrongLastSequenceError),
        ({"expect": Expect(last_id="x")}, WrongLastMsgIdError),
        ({"expect_stream": "OTHER"}, WrongStreamError),
        ({"rollup": Rollup.SUBJECT}, RollupError),
        ({"ttl": 5}, MessageTtlError),
    ],
)
def test_refusals(server, options, kind):
    async def tell(js, subject):
        await js.publish(subject, msg_id="first")
        with pytest.raises(kind) as caught:
            await js.publish(subject, msg_id="m", options=StreamPublishOptions(**options))
        assert caught.value.fault is Fault.REJECTED
        assert caught.value.message_id == "m"
        assert len(await stored(js, subject)) == 1

    story(server, tell)


def test_options_that_hold(server):
    async def tell(js, subject):
        def options(**given):
            return StreamPublishOptions(**given)

        await js.publish(subject, msg_id="a", options=options(expect=Expect(last=0, last_for_topic=0)))
        await js.publish(
            subject, b"2", options=options(expect=Expect(last=1, last_id="a"), expect_stream=subject.upper())
        )
        other = options(expect=Expect(last_for_topic=2), expect_subject=subject)
        await js.publish(f"{subject}.x", b"3", options=other)
        await js.publish(f"{subject}.x", b"4", options=options(ttl=timedelta(hours=1)))
        await js.publish(f"{subject}.x", b"5", options=options(ttl=timedelta.max))
        await js.publish(subject, b"6", options=options(rollup=Rollup.SUBJECT))
        assert [message.data for message in await stored(js, subject)] == [b"3", b"4", b"5", b"6"]
        await js.publish(subject, b"7", options=options(rollup=Rollup.ALL))
        assert [message.data for message in await stored(js, subject)] == [b"7"]

    story(server, tell, allow_rollup=True, allow_message_ttl=True)


def test_a_full_stream(server):
    async def tell(js, subject):
        results = await js.publish_many([StreamMessage(subject, b"%d" % number) for number in range(5)])
        assert [result.sequence for result in results[:2]] == [1, 2]
        assert [(type(result), result.fault) for result in results[2:]] == [(StreamFullError, Fault.UNAVAILABLE)] * 3

    story(server, tell, max_messages=2, discard=DiscardPolicy.NEW)


def test_nobody_answers(server):
    async def tell(js, subject):
        options = StreamPublishOptions(retry_attempts=1, retry_wait=0.01)
        with pytest.raises(NoStreamResponseError, match=r"nobody\.there") as caught:
            await js.publish("nobody.there", msg_id="m", options=options)
        assert (caught.value.fault, caught.value.message_id) == (Fault.UNAVAILABLE, "m")
        (bad, good) = await js.publish_many([StreamMessage("nobody.there"), StreamMessage(subject)])
        assert type(bad) is NoStreamResponseError
        assert good.sequence == 1

    story(server, tell)


def test_a_time_that_is_over_before_the_retry_is_no_retry(server):
    async def tell(js, subject):
        options = StreamPublishOptions(retry_attempts=5, retry_wait=PATIENCE, timeout=PATIENCE / 2)
        with pytest.raises(NoStreamResponseError):
            await js.publish("nobody.there", options=options)

    story(server, tell)


@pytest.mark.parametrize("how", ["publish", "async", "many"])
def test_retried_until_the_stream_is_there(server, how):
    async def tell(js, subject):
        later = f"{subject}later"
        options = StreamPublishOptions(retry_attempts=1_000, retry_wait=0.01)
        if how == "publish":
            waiting = asyncio.create_task(js.publish(later, options=options))
        elif how == "async":
            waiting = asyncio.ensure_future(wait_for(await js.publish_async(later, options=options)))
        else:
            waiting = asyncio.create_task(js.publish_many([StreamMessage(later), StreamMessage(subject)]))
        await js.account_info()  # the answers to the first tries are there
        await js.create_stream(StreamConfig(name=later.upper(), subjects=[later]))
        result = await waiting
        assert (result[0] if how == "many" else result) == PubAck(later.upper(), 1)

    story(server, tell)


async def wait_for(future):
    return await future


@pytest.mark.parametrize("how", ["publish", "async", "many"])
def test_a_stream_without_acks_times_out(server, how):
    """The outcome is unknown: it is stored."""

    async def tell(js, subject):
        message = StreamMessage(subject, b"x", msg_id="m")
        if how == "many":
            (error,) = await js.publish_many([message])
        else:
            with pytest.raises(PublishTimeoutError) as caught:
                await (js.publish_msg(message) if how == "publish" else await js.publish_msg_async(message))
            error = caught.value
        assert isinstance(error, BrokerTimeoutError)
        assert (error.fault, error.message_id) == (Fault.UNKNOWN, "m")
        assert "no_ack" in str(error)
        assert len(await stored(js, subject)) == 1
        assert js._publisher.connection.replies.waiting == {}

    story(server, tell, options=JetStreamOptions(timeout=0.5), no_ack=True)


def test_each_publish_may_have_a_time_of_its_own(server):
    async def tell(js, subject):
        futures = [
            await js.publish_async(
                subject, b"%d" % number, options=StreamPublishOptions(timeout=0.01 * (1 + number % 7))
            )
            for number in range(50)
        ]
        for future in futures:
            with pytest.raises(PublishTimeoutError):
                await future

    story(server, tell, no_ack=True)


@pytest.mark.parametrize("how", ["publish", "async", "many"])
def test_a_blocked_loop_is_no_lost_answer(server, how):
    async def tell(js, subject):
        if how == "publish":
            waiting = asyncio.create_task(js.publish(subject))
        elif how == "async":
            waiting = asyncio.create_task(wait_for(await js.publish_async(subject)))
        else:
            waiting = asyncio.create_task(js.publish_many([StreamMessage(subject)]))
        while not js.connection.replies.waiting:
            await asyncio.sleep(0)
        time.sleep(1.5)
        result = await waiting
        assert (result[0] if how == "many" else result) == PubAck(subject.upper(), 1)

    story(server, tell, options=JetStreamOptions(timeout=1))


# -- async publishes --------------------------------------------------------------------------------------------------


def test_every_future_has_its_own_answer(server):
    async def tell(js, subject):
        futures = [await js.publish_async(subject, b"%d" % number) for number in range(2_000)]
        acks = [await future for future in futures]
        assert [ack.sequence for ack in acks] == list(range(1, 2_001))
        assert futures[7].message == StreamMessage(subject, b"7")
        assert all(future.done() for future in futures)
        assert js.publish_async_pending == 0
        assert await futures[7] == acks[7]  # again

    story(server, tell, options=JetStreamOptions(max_pending=100, timeout=PATIENCE))


def test_the_window_is_never_exceeded(server):
    async def tell(js, subject):
        most = 0

        async def publish(number):
            nonlocal most
            future = await js.publish_async(subject, b"%d" % number)
            most = max(most, js.publish_async_pending)
            return await future

        await asyncio.gather(*(publish(number) for number in range(200)))
        assert most == 7
        # first come, first served
        assert [message.data for message in await stored(js, subject)] == [b"%d" % number for number in range(200)]
        await js.publish_async_complete()

    story(server, tell, options=JetStreamOptions(max_pending=7, timeout=PATIENCE))


def test_a_full_window_says_so(server):
    async def tell(js, subject):
        blocking = [await js.publish_async(subject), await js.publish_async(subject)]
        for wait in (0, 0.05):
            with pytest.raises(TooManyPendingError, match="at most 2") as caught:
                await js.publish_async(subject, options=StreamPublishOptions(stall_wait=wait))
            assert caught.value.fault is Fault.UNAVAILABLE
        waiting = asyncio.create_task(js.publish_async(subject))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert js.publish_async_pending == 2
        with pytest.raises(BrokerTimeoutError):
            await js.publish_async_complete(timeout=0.01)
        for future in blocking:
            with pytest.raises(PublishTimeoutError):
                await future
        assert js.publish_async_pending == 0
        await js.publish_async(subject)
        assert js.publish_async_pending == 1

    story(server, tell, options=JetStreamOptions(max_pending=2, timeout=1), no_ack=True)


def test_a_slot_freed_by_failure_wakes_the_first_in_line(server):
    async def tell(js, subject):
        nobody = StreamPublishOptions(retry_attempts=0)
        futures = await asyncio.gather(*(js.publish_async("nobody.there", options=nobody) for _ in range(5)))
        for future in futures:
            with pytest.raises(NoStreamResponseError):
                await future
        assert js.publish_async_pending == 0

    story(server, tell, options=JetStreamOptions(max_pending=1, timeout=PATIENCE))


def test_failures_are_reported_once_and_never_unretrieved(server, caplog):
    reported = []
    options = JetStreamOptions(on_publish_error=lambda *given: reported.append(given), timeout=PATIENCE)

    async def tell(js, subject):
        unheard = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        await js.publish_async("nobody.there", b"body", msg_id="m", options=StreamPublishOptions(retry_attempts=0))
        await js.publish_async(subject)
        await js.publish_async_complete(PATIENCE)
        with pytest.raises(NoStreamResponseError):
            await js.publish("nobody.there", options=StreamPublishOptions(retry_attempts=0))
        assert unheard == []

    story(server, tell, options=options)
    ((message, error),) = reported
    assert message == StreamMessage("nobody.there", b"body", msg_id="m")
    assert type(error) is NoStreamResponseError
    assert caplog.records == []


def test_unreported_failures_are_logged_without_the_body(server, caplog):
    async def tell(js, subject):
        future = await js.publish_async("nobody.there", b"s3cret", options=StreamPublishOptions(retry_attempts=0))
        with pytest.raises(NoStreamResponseError):
            await future
        assert "s3cret" not in repr(future)

    with caplog.at_level(logging.DEBUG):
        story(server, tell)
    (record,) = (each for each in caplog.records if each.levelno >= logging.WARNING)
    assert "nobody.there" in record.getMessage()
    assert "s3cret" not in caplog.text


def test_an_error_in_on_publish_error_is_logged(server, caplog):
    def broken(message, error):
        raise RuntimeError("oops")

    async def tell(js, subject):
        await js.publish_async("nobody.there", options=StreamPublishOptions(retry_attempts=0))
        await js.publish_async_complete(PATIENCE)
        await js.publish(subject)

    story(server, tell, options=JetStreamOptions(on_publish_error=broken, timeout=PATIENCE))
    assert "oops" in caplog.text


def test_callbacks_and_several_waiters(server):
    async def tell(js, subject):
        called = []
        future = await js.publish_async(subject)
        future.add_done_callback(called.append)
        future.add_done_callback(called.append)
        waiters = [asyncio.create_task(wait_for(future)) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()  # it only stops waiting
        done = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(each) for each in done] == [asyncio.CancelledError, PubAck, PubAck]
        assert called == [future, future]
        future.add_done_callback(called.append)
        await asyncio.sleep(0)
        assert len(called) == 3

    story(server, tell)


@pytest.mark.parametrize("how", ["publish", "async", "many"])
def test_closing_ends_what_is_outstanding(server, how):
    async def tell(js, subject):
        if how == "async":
            waiting = asyncio.ensure_future(wait_for(await js.publish_async(subject)))
        else:
            call = js.publish(subject) if how == "publish" else js.publish_many([StreamMessage(subject)] * 3)
            waiting = asyncio.create_task(call)
        stalled = [asyncio.create_task(js.publish_async(subject)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await js.aclose()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        first, *rest = result if how == "many" else [result]
        assert (type(first), first.fault) == (PublishInterruptedError, Fault.UNKNOWN)
        assert [(type(error), error.fault) for error in rest] == [(PublishError, Fault.UNAVAILABLE)] * len(rest)
        for result in await asyncio.gather(*stalled, return_exceptions=True):
            if isinstance(result, Exception):
                assert type(result) is ClosedError
            else:
                with pytest.raises(PublishInterruptedError):
                    await result
        for again in (js.publish(subject), js.publish_async(subject), js.publish_many([]), js.publish_atomic([])):
            with pytest.raises(ClosedError):
                await again

    story(server, tell, options=JetStreamOptions(max_pending=1, timeout=PATIENCE), no_ack=True)


def test_closing_a_borrowed_connection_ends_what_is_outstanding(server):
    async def tell(js, subject):
        future = await js.publish_async(subject)
        many = asyncio.create_task(js.publish_many([StreamMessage(subject)] * 3))
        await asyncio.sleep(0)
        await js.connection.aclose()
        with pytest.raises(PublishInterruptedError):
            await future
        assert [type(result) for result in await many] == [PublishInterruptedError] * 3
        for again in (js.publish(subject), js.publish_async(subject), js.publish_many([]), js.publish_atomic([])):
            with pytest.raises(ClosedError):
                await again
        assert js.publish_async_pending == 0

    story(server, tell, no_ack=True)


def test_two_over_one_connection_know_their_own(server):
    async def tell(js, subject):
        other = jetstream.JetStream(js.connection, JetStreamOptions(timeout=PATIENCE))
        ours, theirs = await js.publish_async(subject), await other.publish_async(subject)
        await other.aclose()
        with pytest.raises(PublishInterruptedError):
            await theirs
        assert not ours.done()
        assert js.connection.connected

    story(server, tell, options=JetStreamOptions(timeout=PATIENCE), no_ack=True)


def test_futures_are_what_asyncio_takes(server):
    async def tell(js, subject):
        futures = [await js.publish_async(subject) for _ in range(20)]
        acks = await asyncio.gather(*futures)
        assert [ack.sequence for ack in acks] == list(range(1, 21))
        assert await asyncio.wait_for(futures[3], PATIENCE) == acks[3]
        assert {future: future.message.subject for future in futures}[futures[7]] == subject

    story(server, tell)


def test_nothing_that_failed_is_kept(server):
    """The garbage collector does not see futures: nothing may hang together through one."""

    class Witness:
        pass

    async def fail(js, subject, options):
        witness = Witness()
        future = await js.publish_async(subject, options=options)
        future.add_done_callback(lambda _: (witness, future))
        for _ in range(2):
            try:
                await future
            except PublishError as error:
                error.held = (witness, future)
        return weakref.ref(witness)

    async def tell(js, subject):
        refused = StreamPublishOptions(expect=Expect(last=99))
        nobody = StreamPublishOptions(retry_attempts=0)
        late = StreamPublishOptions(timeout=0.000_001)
        kept = [await fail(js, *given) for given in ((subject, refused), ("nobody.there", nobody), (subject, late))]
        gc.collect()
        assert [each() for each in kept] == [None] * 3

    def broken(message, error):
        raise error

    story(server, tell, options=JetStreamOptions(on_publish_error=broken, timeout=PATIENCE))


# -- many -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_pending", [1, 10, 4_000])
def test_many(server, max_pending):
    async def tell(js, subject):
        limit = js.max_payload
        messages = [StreamMessage(subject, b"%d" % number, msg_id=f"{number % 900}") for number in range(1_000)]
        messages[5] = StreamMessage(subject, b"x" * (limit + 1), msg_id="big")
        messages[6] = StreamMessage("nobody.there")
        results = await js.publish_many(messages)
        assert type(results[5]) is MessageTooLargeError
        assert (results[5].limit, results[5].message_id) == (limit, "big")
        assert type(results[6]) is NoStreamResponseError
        good = [result for result in results if isinstance(result, PubAck)]
        assert len(good) == 998
        assert [ack.duplicate for ack in good].count(True) == 98
        assert len({ack.sequence for ack in good}) == 900
        assert await js.publish_many([]) == []

    story(server, tell, options=JetStreamOptions(max_pending=max_pending, timeout=PATIENCE))


def test_many_concurrently(server):
    async def tell(js, subject):
        batches = [[StreamMessage(subject, b"%d" % part)] * 700 for part in range(8)]
        results = await asyncio.gather(*(js.publish_many(batch) for batch in batches))
        sequences = [ack.sequence for result in results for ack in result]
        assert sorted(sequences) == list(range(1, 5_601))
        for result in results:
            own = [ack.sequence for ack in result]
            assert own == sorted(own)

    story(server, tell)


def test_many_large_ones_wait_for_the_connection(server):
    async def tell(js, subject):
        body = b"x" * 500_000
        results = await js.publish_many([StreamMessage(subject, body)] * 40)
        assert [ack.sequence for ack in results] == list(range(1, 41))

    options = JetStreamOptions(timeout=PATIENCE, connection=ConnectionOptions(write_limit=1_000_000))
    story(server, tell, options=options)


def test_a_cancelled_many_leaves_nothing(server):
    async def tell(js, subject):
        task = asyncio.create_task(js.publish_many([StreamMessage(subject)] * 1_000))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await js.publish(subject)).stream == subject.upper()
        assert js._publisher.connection.replies.waiting == {}

    story(server, tell)


# -- what is refused --------------------------------------------------------------------------------------------------


BAD_SUBJECTS = [
    "", "a b", "a\tb", "a\r\nPUB x 0\r\n", "a\0", "a..b", ".a", "a.", "*", "a.*", "a.>", ">", "$JS.API.INFO", "$SYS.x",
    "_INBOX.x", "x" * 5_000, "a.\u0085", "\ud800", 3, None, b"a",
]  # fmt: skip
BAD_MESSAGES = [
    ({"data": "text"}, UsageError),
    ({"data": bytearray(b"x")}, UsageError),
    ({"data": None}, UsageError),
    ({"headers": {"Nats-Msg-Id": "1"}}, ConfigError),
    ({"headers": {"nats-rollup": "all"}}, ConfigError),
    ({"headers": {"A": "b\r\nC: d"}}, ConfigError),
    ({"headers": {"A\r\nB": "c"}}, ConfigError),
    ({"headers": {"A:": "c"}}, ConfigError),
    ({"headers": {"A": "\0"}}, ConfigError),
    ({"msg_id": ""}, ConfigError),
    ({"msg_id": "a\r\nB: c"}, ConfigError),
    ({"msg_id": " a"}, ConfigError),
    ({"data": b"x" * 1_048_577}, MessageTooLargeError),
    ({"headers": {"A": "x" * 1_048_576}}, MessageTooLargeError),
]


@pytest.fixture(scope="module")
def recording():
    with RecordingServer() as running:
        yield running


async def refused(js, kind, subject, given):
    for publish in (js.publish, js.publish_async):
        with pytest.raises(kind):
            await publish(subject, **given)
    if kind is MessageTooLargeError:
        (error,) = await js.publish_many([StreamMessage(subject, **given)])
        assert type(error) is MessageTooLargeError
    elif given.get("msg_id") != "":
        with pytest.raises(kind):
            await js.publish_many([StreamMessage("fine"), StreamMessage(subject, **given)])
        with pytest.raises(kind):
            await js.publish_atomic([StreamMessage("fine"), StreamMessage(subject, **given)])


def test_what_is_refused_sends_no_byte(recording):
    async def run():
        async with jetstream.connect(recording.url) as js:
            before = recording.received
            for subject in BAD_SUBJECTS:
                await refused(js, InvalidSubjectError, subject, {})
            for given, kind in BAD_MESSAGES:
                await refused(js, kind, "orders", given)
            assert js.publish_async_pending == 0
            assert js._publisher.connection.replies.waiting == {}
            await asyncio.sleep(0.05)
            assert recording.received == before

    asyncio.run(run())


def test_what_an_old_server_would_ignore_is_refused():
    async def run(old):
        async with jetstream.connect(old.url) as js:
            before = old.received
            for given in ({"ttl": 5}, {"expect": Expect(last_for_topic=1), "expect_subject": "a"}):
                for publish in (js.publish, js.publish_async):
                    with pytest.raises(UnsupportedError, match=rf"{list(given)[-1]} needs nats-server 2\.11.*2\.10\.9"):
                        await publish("orders", options=StreamPublishOptions(**given))
            assert js.publish_async_pending == 0
            await asyncio.sleep(0.05)
            assert old.received == before

    with RecordingServer({"version": "2.10.9"}) as old:
        asyncio.run(run(old))


def test_the_limit_is_named(server):
    async def tell(js, subject):
        limit = js.max_payload
        await js.publish(subject, b"x" * (limit - 16 - 12), headers={"A": "x" * 11})  # "A: " + 11 + CRLF is 16
        with pytest.raises(MessageTooLargeError, match=rf"{limit + 1} .*{limit}") as caught:
            await js.publish(subject, b"x" * (limit - 16 - 11), headers={"A": "x" * 11}, msg_id=None)
        assert caught.value.limit == limit

    story(server, tell)


def test_the_longest_subject_is_published(server):
    async def tell(js, subject):
        longest = 0
        for size in range(3_900, 4_096):
            try:
                ack = await js.publish(f"{subject}.".ljust(size, "x"))
            except InvalidSubjectError:
                break
            longest = size
            assert ack.stream == subject.upper()
        assert 3_900 <= longest < 4_095

    story(server, tell)
