"""A wrong engine per check of `stream_second`."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from headrace.core.errors import PublishError
from headrace.streams.config import ReplayPolicy
from tests.conformance.mutants.streams import Wrong, consumers_changed, limits_changed


class ForgetsRollup:
    class Manager(Wrong):
        async def publish(self, subject, data=b"", *, options=None, **further):
            plain = options and replace(options, rollup=None)
            return await self.inner.publish(subject, data, options=plain, **further)


class StoresTheRest:
    """What is refused of a batch is left out, and said aloud; the rest is stored."""

    class Manager(Wrong):
        async def publish_atomic(self, messages):
            before = [await self.inner.publish_many([message]) for message in messages[:2]]
            assert not any(isinstance(each, PublishError) for (each,) in before)
            ack = await self.inner.publish_atomic(messages[2:])
            return msgspec.structs.replace(ack, batch_size=len(messages))


class PausesNothing:
    """Only its info is paused."""

    @staticmethod
    def pause(_):
        async def pause(until):
            pass

        return pause

    @staticmethod
    def info(inner):
        async def info():
            found = await inner()
            return msgspec.structs.replace(found, paused=True, pause_remaining=1)

        return info


MUTANTS = {
    "rollup_replaces_older": ForgetsRollup,
    "atomic_batch_all_or_none": StoresTheRest,
    "pause_resume": PausesNothing,
    "replay_keeps_the_gaps": consumers_changed(replay_policy=ReplayPolicy.INSTANT),
    "request_limits_hold": consumers_changed(max_request_batch=None),
    "consumer_limits_hold": limits_changed(consumer_limits=None),
}
