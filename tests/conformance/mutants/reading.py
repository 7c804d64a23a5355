"""A wrong engine per check of `stream_read` and `stream_settle`, and of the later ones of `stream_store`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec

from headrace.core.delivery import ACK
from headrace.streams.config import AckPolicy, ConsumerConfig, DeliverPolicy
from headrace.streams.errors import PullRejectedError
from headrace.streams.msg import Msg
from tests.conformance.mutants.streams import Wrong, WrongSession, consumers_changed


def session_changed(**fields):
    """Sessions with other options than asked for."""

    class Changed:
        @staticmethod
        def session(inner):
            return lambda options: inner(replace(options, **fields))

    return Changed


def ordered_changed(**fields):
    """Ordered readers with another config than asked for."""

    class Stream(Wrong):
        async def ordered_consumer(self, config):
            return await self.inner.ordered_consumer(replace(config, **fields))

    return type("OrderedChanged", (), {"Stream": Stream})


class ShortIsAnError:
    class Session(WrongSession):
        async def pull(self, limit, wait, **options):
            got = await super().pull(limit, wait, **options)
            if wait and not got:
                raise PullRejectedError("nothing came")
            return got


class ForgetsBytes:
    class Session(WrongSession):
        async def pull(self, limit, wait, **options):
            return await super().pull(limit, wait)


class KeepsItsBuffer:
    """A reader that is closed leaves what it had to the lease."""

    class Session(WrongSession):
        async def aclose(self):
            await self.inner.stop()


class DropsTheBufferOnStop:
    class Session(WrongSession):
        stopped = False

        async def stop(self):
            self.stopped = True
            await self.inner.stop()

        async def pull(self, limit, wait, **options):
            return [] if self.stopped else await super().pull(limit, wait, **options)


class GivesToBoth:
    """Each reader has a consumer of its own."""

    class Stream(Wrong):
        async def create_consumer(self, config):
            first = self.wrap(await self.inner.create_consumer(config))
            second = await self.inner.create_consumer(replace(config, durable="second"))
            readers = [first.session, second.session]

            def session(options):
                return readers.pop(0)(options)

            first.session = session
            return first


class HandsOutStale:
    """What it once got it hands out, whatever became of the lease."""

    class Session(WrongSession):
        def __init__(self, inner):
            super().__init__(inner)
            self.stale = []

        async def pull(self, limit, wait, **options):
            if not self.stale:
                self.stale = await super().pull(4, wait, **options)
            got, self.stale = self.stale[:limit], self.stale[limit:]
            return got


class SilentFailures:
    class Session(WrongSession):
        def settle(self, msg, outcome):
            self.inner.settle(msg, type(outcome)(3_600.0) if hasattr(outcome, "delay") else outcome)


class LosesWhenCancelled:
    class Session(WrongSession):
        async def pull(self, limit, wait, **options):
            got = await super().pull(limit, wait, **options)
            for _ in range(5):
                await asyncio.sleep(0)
            return got


class EndsWithItsConsumer:
    """An ordered reader that is nothing but a consumer without acks."""

    class Stream(Wrong):
        async def ordered_consumer(self, config):
            return await self.inner.create_consumer(ConsumerConfig(ack_policy=AckPolicy.NONE))


class Forgetful(Msg):
    """A message that does not remember its outcome."""

    def _check_unsettled(self):
        self.outcome = None


class SettlesAgain:
    class Session(WrongSession):
        async def pull(self, limit, wait, **options):
            return [Forgetful(*msgspec.structs.astuple(msg)) for msg in await super().pull(limit, wait, **options)]


class LateAcksLost:
    class Session(WrongSession):
        async def confirm(self, msg):
            if self.inner.alive(msg):
                await self.inner.confirm(msg)


class ConfirmsTooEarly:
    class Session(WrongSession):
        async def confirm(self, msg):
            asyncio.get_running_loop().call_later(0.9, self.inner.settle, msg, ACK)


class OnePage:
    class Stream(Wrong):
        async def consumer_names(self):
            count = 0
            async for name in self.inner.consumer_names():
                count += 1
                if count <= 256:
                    yield name


class DeletesNothing:
    class Stream(Wrong):
        async def secure_delete_msg(self, sequence):
            pass


class ForgetsTtl:
    class Manager(Wrong):
        async def publish(self, subject, data=b"", *, options=None, **further):
            return await self.inner.publish(subject, data, options=options and replace(options, ttl=None), **further)


class LosesFuturesOnClose:
    class Manager(Wrong):
        async def publish_async(self, *arguments, **options):
            await self.inner.publish_async(*arguments, **options)
            return asyncio.get_running_loop().create_future()


MUTANTS = {
    "fetch_full_short_empty": ShortIsAnError,
    "fetch_bytes_edge": ForgetsBytes,
    "no_wait_ends_at_max_ack_pending": consumers_changed(max_ack_pending=1_000),
    "stop_after_is_exact": session_changed(stop_after=None, prefetch=10),
    "stop_hands_back_buffer": KeepsItsBuffer,
    "drain_hands_out_buffer": DropsTheBufferOnStop,
    "two_readers_share": GivesToBoth,
    "old_buffer_not_handed_out": HandsOutStale,
    "consume_survives_its_handler": SilentFailures,
    "cancelled_fetch_loses_nothing": LosesWhenCancelled,
    "ordered_survives_delete": EndsWithItsConsumer,
    "ordered_new_begins_at_the_end": ordered_changed(deliver_policy=DeliverPolicy.ALL),
    "ordered_last_per_subject": ordered_changed(deliver_policy=DeliverPolicy.ALL),
    "settle_only_once": SettlesAgain,
    "stale_ack_counts": LateAcksLost,
    "double_ack_confirms": ConfirmsTooEarly,
    "many_filters_hold": consumers_changed(filter_subjects=()),
    "headers_only_leaves_bodies_out": consumers_changed(headers_only=False),
    "idle_consumer_goes": consumers_changed(inactive_threshold=3_600.0),
    "lists_are_complete": OnePage,
    "secure_delete_removes": DeletesNothing,
    "ttl_ends_one_message": ForgetsTtl,
    "futures_resolve_on_close": LosesFuturesOnClose,
}
