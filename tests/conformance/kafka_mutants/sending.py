"""What a producer promises of its results and of its order, as checks; and producers that do not keep it."""

import asyncio

from headrace.core.errors import BrokerTimeoutError, ClosedError, PublishError, PublishInterruptedError
from headrace.core.message import Message
from headrace.flow.retry import RetryPolicy
from headrace.kafka import KafkaBroker
from headrace.kafka.codes import Code
from headrace.kafka.errors import KafkaError
from headrace.kafka.producer import Producer
from headrace.kafka.sending import pipeline
from headrace.kafka.sending.flights import Many, One
from headrace.kafka.sending.gate import Turn
from headrace.kafka.sending.pipeline import Pipeline
from headrace.kafka.sending.result import ProduceResult
from headrace.kafka.sending.sender import Sender
from tests.conformance.kafka_mutants.producing_script import scripted
from tests.differential.mutants import instead, nothing
from tests.unit.kafka.test_consuming_revoke import in_loop, until

SOON = RetryPolicy(initial=0.05, maximum=0.05, jitter=0)
PLACES = 7
WAITING = "waiting call", "waiting for a future"
"""What is not accepted before the close."""


def message(number, key=b"k"):
    return Message(topic="orders", key=key, body=b"%d" % number)


# --- checks --------------------------------------------------------------------------------------


@in_loop
async def each_future_has_its_result_after_the_close():
    """The driver takes all and says nothing any more; more wait for a place. Cut off at once, or after a while."""
    for flush in (True, False):
        with scripted(deaf=True) as (address, producing):
            producer = Producer(KafkaBroker(address, create=False), max_outstanding=PLACES)
            async with producer:
                accepted = await accepted_by(producer)
                await until(lambda: len(producing.taken) == PLACES)
                await closed(producer, accepted, flush=flush)


@in_loop
async def each_future_has_its_result_where_the_middleware_stands_still():
    """The driver has none of them: some are in the middleware, some behind one of their key, some wait for a place."""
    begun = []

    async def stand_still(item, call_next):
        begun.append(item)
        await asyncio.Event().wait()

    for flush in (True, False):
        with scripted() as (address, _):
            producer = Producer(KafkaBroker(address, create=False), max_outstanding=PLACES, middleware=[stand_still])
            async with producer:
                accepted = await accepted_by(producer)
                await until(lambda: begun)
                await closed(producer, accepted, flush=flush)
        begun.clear()


async def accepted_by(producer):
    """Whatever is to have a result, by its name: all places are taken, and two calls wait for one."""
    accepted = {f"future {number}": await producer.produce_async(message(number)) for number in range(3)}
    calls = {
        "list": producer.produce_many([message(number, key=b"l") for number in range(3)]),
        "call": producer.produce(message(0, key=b"c")),
        WAITING[0]: producer.produce(message(1, key=b"c")),
        WAITING[1]: producer.produce_async(message(3)),
    }
    accepted |= {name: asyncio.ensure_future(call) for name, call in calls.items()}
    await asyncio.sleep(0.02)
    return accepted


async def closed(producer, accepted, *, flush):
    try:
        await producer.aclose(flush=flush, timeout=0.05)
    except BrokerTimeoutError:
        assert flush
    await asyncio.wait(accepted.values(), timeout=0.5)
    forgotten = [name for name, one in accepted.items() if not one.done()]
    for name in forgotten:
        accepted[name].cancel()
    results = await asyncio.gather(*accepted.values(), return_exceptions=True)
    assert not forgotten, f"without a result after the close: {', '.join(forgotten)}"
    for name, result in zip(accepted, results, strict=True):
        kinds = {type(one) for one in (result if isinstance(result, list) else [result])}
        assert kinds == {ClosedError if name in WAITING else PublishInterruptedError}, f"{name}: {result}"


@in_loop
async def what_failed_in_the_driver_is_not_sent_again():
    """The one behind it is stored by then. Runs of the middleware are repeated, but none that has handed over."""
    await one_fails(both_futures, middleware=[pass_on], retry=SOON)


@in_loop
async def a_middleware_sends_nothing_again():
    """The user's own, which tries again whatever failed."""

    async def stubborn(item, call_next):
        try:
            return await call_next(item)
        except PublishError:
            return await call_next(item)

    await one_fails(both_futures, middleware=[stubborn])


@in_loop
async def what_failed_in_the_driver_is_not_sent_again_without_middleware():
    await one_fails(both_futures)


@in_loop
async def what_failed_of_a_list_is_not_sent_again():
    await one_fails(lambda producer: producer.produce_many([message(0), message(1)]))


@in_loop
async def a_failed_run_keeps_its_place():
    """It waits to be repeated, and what has its key waits behind it."""
    failing = [b"0"]

    async def fail_once(item, call_next):
        if item.body in failing:
            failing.remove(item.body)
            raise RuntimeError("not this time")
        return await call_next(item)

    with scripted() as (address, producing):
        async with Producer(KafkaBroker(address, create=False), middleware=[fail_once], retry=SOON) as producer:
            for number in range(2):
                await producer.produce_async(message(number))
            await until(lambda: len(producing.taken) == 2)
            producing.answer(b"0")
            producing.answer(b"1")
    assert producing.taken == [b"0", b"1"], f"handed over in this order: {producing.taken}"


async def pass_on(item, call_next):
    return await call_next(item)


async def both_futures(producer):
    futures = [await producer.produce_async(message(number)) for number in range(2)]
    return await asyncio.gather(*futures, return_exceptions=True)


async def one_fails(send, **settings):
    """The driver has both when the first fails; nothing of it comes a second time."""
    with scripted() as (address, producing):
        async with Producer(KafkaBroker(address, create=False), **settings) as producer:
            sending = asyncio.ensure_future(send(producer))
            await until(lambda: len(producing.taken) == 2)
            producing.answer(b"0", Code.LOCAL_MSG_TIMED_OUT)
            producing.answer(b"1")
            await until(lambda: sending.done() or len(producing.taken) > 2)
            await producer.aclose(flush=False)
            (results,) = await asyncio.gather(sending, return_exceptions=True)
    assert producing.taken == [b"0", b"1"], f"handed over in this order: {producing.taken}"
    failed, stored = results
    assert isinstance(failed, PublishError)
    assert isinstance(stored, ProduceResult)


# --- mutants -------------------------------------------------------------------------------------


def without_what_was_cancelled(original):
    """The result comes from the end of the task, and a cancelled one has none."""

    def landed(self, *given):
        if not given[-1].cancelled():
            original(self, *given)

    return landed


def left_alone(_):
    async def nobody(self):
        pass

    return nobody


def forgetful(original):
    """A run that does not know whether the driver has got its message."""
    return type("Forgetful", (original,), {"handed": property(lambda self: False, lambda self, handed: None)})


def without_a_look(_):
    return pipeline._run.get


def sent_again(original):
    again = set()

    def settle(self):
        if isinstance(self._result, KafkaError) and self not in again:
            again.add(self)
            self._result = None
            self.client.produce(self._message.topic, self._message.body, self._message.key, -1, self.report)
        else:
            original(self)

    return settle


def failed_ones_again(original):
    async def send_many(self, messages):
        results = await original(self, messages)
        return [
            await self.send_one(message) if isinstance(result, PublishError) else result
            for message, result in zip(messages, results, strict=True)
        ]

    return send_many


def left_with_a_failure(original):
    def delay(self, error, run):
        run.turn.leave()
        return original(self, error, run)

    return delay


AGAIN = r"in this order: \[b'0', b'1', b'0'\]"
BEHIND = r"in this order: \[b'1', b'0'\]"
FORGOTTEN = "without a result after the close: "

MUTANTS = {
    "future forgotten at close": {
        "nobody is interrupted": (
            instead(Sender, "_interrupt", nothing),
            each_future_has_its_result_after_the_close,
            f"{FORGOTTEN}future 0, future 1, future 2, list, call",
        ),
        "a list is not interrupted": (
            instead(Many, "interrupt", nothing),
            each_future_has_its_result_after_the_close,
            f"{FORGOTTEN}list$",
        ),
        "the middleware is left alone": (
            instead(Pipeline, "aclose", left_alone),
            each_future_has_its_result_where_the_middleware_stands_still,
            f"{FORGOTTEN}future 0, future 1, future 2, list, call",
        ),
        "what was cancelled in the middleware has no result": (
            instead(Pipeline, "_landed", without_what_was_cancelled),
            each_future_has_its_result_where_the_middleware_stands_still,
            f"{FORGOTTEN}future 0, future 1, future 2, call",
        ),
        "a list that was cancelled in the middleware has no result": (
            instead(Pipeline, "_list_landed", without_what_was_cancelled),
            each_future_has_its_result_where_the_middleware_stands_still,
            f"{FORGOTTEN}list$",
        ),
    },
    "failed message sent again behind its key": {
        "repeated after the hand-over": (
            instead(pipeline, "_Run", forgetful),
            what_failed_in_the_driver_is_not_sent_again,
            AGAIN,
        ),
        "a middleware may hand it over again": (
            instead(pipeline, "_taken", without_a_look),
            a_middleware_sends_nothing_again,
            AGAIN,
        ),
        "a failed report sends it again": (
            instead(One, "settle", sent_again),
            what_failed_in_the_driver_is_not_sent_again_without_middleware,
            AGAIN,
        ),
        "what failed of a list is sent again": (
            instead(Sender, "send_many", failed_ones_again),
            what_failed_of_a_list_is_not_sent_again,
            AGAIN,
        ),
        "nobody waits for its key": (instead(Turn, "come", left_alone), a_failed_run_keeps_its_place, BEHIND),
        "a failed run lets the next go": (
            instead(Pipeline, "_delay", left_with_a_failure),
            a_failed_run_keeps_its_place,
            BEHIND,
        ),
    },
}
