"""A wrong engine per stream check: the real one behind a wrapper that breaks one promise.

`Wrong` passes everything on; what a method of the same name in a mutant's `Manager`, `Stream`, `Consumer` or `Session`
does instead is the defect.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import msgspec

from headrace.core.delivery import ACK, Nak, Reject
from headrace.streams.api import Stream as AnyStream
from headrace.streams.config import AckPolicy, DeliverPolicy, DiscardPolicy, RetentionPolicy
from headrace.streams.consumer import Consumer as AnyConsumer
from headrace.streams.errors import ApiError, ConsumerDeletedError
from headrace.streams.info import PubAck


class Wrong:
    """An object around another one. What it returns is wrapped as well, if there is a wrapper for it."""

    def __init__(self, inner, mutant):
        self.inner = inner
        self.mutant = mutant

    def __getattr__(self, name):
        value = getattr(self.inner, name)
        if not callable(value):
            return value

        def call(*arguments, **options):
            result = value(*arguments, **options)
            return self._later(result) if asyncio.iscoroutine(result) else result

        return call

    async def _later(self, coroutine):
        return self.wrap(await coroutine)

    def wrap(self, value):
        if isinstance(value, AnyConsumer):
            return wrong_consumer(value, self.mutant)
        if isinstance(value, AnyStream) and hasattr(self.mutant, "Stream"):
            return self.mutant.Stream(value, self.mutant)
        return Wrong(value, self.mutant) if isinstance(value, AnyStream) else value


def wrong_consumer(consumer, mutant):
    """The consumer itself, with a session and methods of the mutant: all ways to read go through `session`."""
    for name in ("info", "pause", "session"):
        if hasattr(mutant, name):
            setattr(consumer, name, getattr(mutant, name)(getattr(consumer, name)))
    if hasattr(mutant, "Session"):
        inner = consumer.session
        consumer.session = lambda options: mutant.Session(inner(options))
    return consumer


class WrongSession:
    """A pull session around another one; its messages settle here."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def pull(self, limit, wait, **options):
        got = await self.inner.pull(limit, wait, **options)
        for msg in got:
            msg._session = self
        return got

    def take(self):
        """Everything goes through `pull`, where it can go wrong."""

    def settle(self, msg, outcome):
        self.inner.settle(msg, outcome)

    async def confirm(self, msg):
        await self.inner.confirm(msg)


class AcksBeforeCommit:
    class Manager(Wrong):
        late = ()

        async def publish(self, subject, data=b"", **options):
            self.late = (*self.late, (subject, data, options))
            return PubAck(subject.partition(".")[0], len(self.late))

        async def aclose(self):
            for subject, data, options in self.late:
                await self.inner.publish(subject, data, **options)


class ReusesSequences:
    class Manager(Wrong):
        gone = 0

        async def publish(self, *arguments, **options):
            ack = await self.inner.publish(*arguments, **options)
            return msgspec.structs.replace(ack, sequence=ack.sequence - 1) if ack.sequence > 3 else ack


class NoExpectations:
    class Manager(Wrong):
        async def publish(self, subject, data=b"", *, options=None, **further):
            return await self.inner.publish(subject, data, options=options and replace(options, expect=None), **further)


class ForgetsAckedIds:
    """The window is as short as the engine allows, as if an id went with its message."""

    class Manager(Wrong):
        async def create_stream(self, config):
            return self.wrap(await self.inner.create_stream(replace(config, duplicate_window=0.1)))

        async def publish(self, *arguments, **options):
            await asyncio.sleep(0.11)
            return await self.inner.publish(*arguments, **options)


def limits_changed(**fields):
    """A manager that makes every stream with these fields."""

    class Manager(Wrong):
        async def create_stream(self, config):
            return self.wrap(await self.inner.create_stream(replace(config, **fields)))

    return type("LimitsChanged", (), {"Manager": Manager})


def consumers_changed(**fields):
    """A stream that makes every consumer with these fields."""

    class Stream(Wrong):
        async def create_consumer(self, config):
            return self.wrap(await self.inner.create_consumer(replace(config, **fields)))

    return type("ConsumersChanged", (), {"Stream": Stream})


class MiscountsPurge:
    class Stream(Wrong):
        async def purge(self, *arguments):
            return await self.inner.purge(*arguments) + 1


class DeletesQuietly:
    class Stream(Wrong):
        async def delete_msg(self, sequence):
            with suppress(ApiError):
                await self.inner.delete_msg(sequence)


class ReadSkips:
    class Stream(Wrong):
        async def read(self, **options):
            return (await self.inner.read(**options))[1:]


class TakesAnyStream:
    class Manager(Wrong):
        async def create_stream(self, config):
            try:
                return self.wrap(await self.inner.create_stream(config))
            except Exception:  # exists, in another form
                return self.wrap(await self.inner.stream(config.name))


class FuturesLost:
    class Manager(Wrong):
        count = 0

        async def publish_async(self, *arguments, **options):
            self.count += 1
            future = await self.inner.publish_async(*arguments, **options)
            if self.count % 10:
                return future
            await self.inner.publish_async_complete()
            return await self.inner.publish_async(*arguments, **options)


def swaps(kind, outcome):
    """A session that takes one outcome for another."""

    class Session(WrongSession):
        def settle(self, msg, given):
            self.inner.settle(msg, outcome(given) if isinstance(given, kind) else given)

    return type("Swaps", (), {"Session": Session})


class HighestSeenFloor:
    @staticmethod
    def info(inner):
        async def info():
            found = await inner()
            return msgspec.structs.replace(found, ack_floor=found.delivered)

        return info


class NeverRedelivers:
    class Session(WrongSession):
        async def pull(self, limit, wait, **options):
            got = await super().pull(limit, wait, **options)
            again = [msg for msg in got if msg.metadata.num_delivered > 1]
            for msg in again:
                self.inner.settle(msg, ACK)
            return [msg for msg in got if msg not in again]


class NoProgress:
    class Session(WrongSession):
        def extend(self, msg):
            pass


class HalvesNakDelay(swaps(Nak, lambda given: Nak(given.delay / 2))):
    pass


class DropsWakeUp:
    class Session(WrongSession):
        async def pull(self, limit, wait, **options):
            got = await super().pull(limit, 0, **options)
            if not got and wait:
                await asyncio.sleep(wait)
            return got


class EndsInSilence:
    class Session(WrongSession):
        async def pull(self, limit, wait, **options):
            try:
                return await super().pull(limit, wait, **options)
            except ConsumerDeletedError:
                return []


class UpdatesAnything:
    class Stream(Wrong):
        async def update_consumer(self, config):
            return await self.create_or_update_consumer(config)


class RetainsAcked:
    class Manager(Wrong):
        async def create_stream(self, config):
            return self.wrap(await self.inner.create_stream(replace(config, retention=RetentionPolicy.LIMITS)))


class PurgedStayPending:
    @staticmethod
    def info(inner):
        async def info():
            found = await inner()
            return msgspec.structs.replace(found, num_ack_pending=found.delivered.consumer)

        return info


class NewIsAll:
    """What begins with new messages begins with all of them."""

    class Stream(Wrong):
        async def create_consumer(self, config):
            every = config.deliver_policy is DeliverPolicy.NEW
            return self.wrap(
                await self.inner.create_consumer(replace(config, deliver_policy=DeliverPolicy.ALL) if every else config)
            )


class OrderedSkips:
    """The ordered reader begins at the newest message."""

    class Stream(Wrong):
        async def ordered_consumer(self, config):
            return await self.inner.ordered_consumer(replace(config, deliver_policy=DeliverPolicy.LAST))


MUTANTS = {
    "acked_is_stored": AcksBeforeCommit,
    "sequence_never_reused": ReusesSequences,
    "expectations_hold": NoExpectations,
    "dedup_outlives_ack": ForgetsAckedIds,
    "discard_old_keeps_limit": limits_changed(max_messages_per_subject=None),
    "discard_new_refuses": limits_changed(discard=DiscardPolicy.OLD),
    "max_age_removes": limits_changed(max_age=None),
    "purge_counts": MiscountsPurge,
    "delete_leaves_gap": DeletesQuietly,
    "reads_find_everything": ReadSkips,
    "names_and_subjects_exclusive": TakesAnyStream,
    "async_publishes_resolve": FuturesLost,
    "ack_floor_waits_for_gap": HighestSeenFloor,
    "ack_wait_redelivers": NeverRedelivers,
    "in_progress_restarts_wait": NoProgress,
    "nak_delay_exact": HalvesNakDelay,
    "term_is_final": swaps(Reject, lambda _: Nak(0.5)),
    "max_deliver_ends": consumers_changed(max_deliver=None),
    "backoff_replaces_wait": consumers_changed(backoff=(), ack_wait=timedelta(seconds=2)),
    "ack_all_covers_below": consumers_changed(ack_policy=AckPolicy.EXPLICIT),
    "deliver_policies_begin": NewIsAll,
    "max_ack_pending_holds": consumers_changed(max_ack_pending=1000),
    "parked_pull_wakes": DropsWakeUp,
    "deleted_consumer_ends_pull": EndsInSilence,
    "consumer_update_rules": UpdatesAnything,
    "retention_follows_acks": RetainsAcked,
    "removed_leaves_pending": PurgedStayPending,
    "ordered_sees_all_once": OrderedSkips,
}
