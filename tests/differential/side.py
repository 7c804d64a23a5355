"""One side of the comparison: an opened stream engine, driven step by step, whatever engine it is."""

import asyncio
import time
from contextlib import suppress
from typing import NamedTuple

from headrace.core.errors import HeadraceError
from headrace.streams.config import (
    ConsumerConfig,
    Expect,
    GetBatch,
    OrderedConsumerConfig,
    PurgeOptions,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.errors import ConsumerNotFoundError
from headrace.streams.session import SessionOptions
from tests.differential import canonical

PULL = 0.05  # seconds that a pull waits where an engine may keep it open without an answer
LONG = 20.0
EARLY = 0.01  # of clocks that are not the same
FEW = 100  # no program leaves so many messages unsettled


class Step(NamedTuple):
    """One operation of a program: a method of `Side`, and what it is called with."""

    name: str
    arguments: tuple
    options: dict

    def __repr__(self):
        given = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.options.items())]
        return f"do.{self.name}({', '.join(given)})"


class Do:
    """``do.publish("S.a", b"x")`` is the step that publishes: programs read like calls."""

    def __getattr__(self, name):
        return lambda *arguments, **options: Step(name, arguments, options)


do = Do()


def moved(value, name):
    """The same with the streams S and S-…, and their subjects, under other names: no two programs share one.

    A server that deletes a stream and makes one of that name at once may find what the old one left on its disk.
    """
    if isinstance(value, str):
        return name + value[1:] if value == "S" or value.startswith(("S.", "S-")) else value
    if isinstance(value, Step):
        return Step(value.name, moved(value.arguments, name), moved(value.options, name))
    if isinstance(value, dict):
        return {key: moved(each, name) for key, each in value.items()}
    if isinstance(value, list | tuple):
        made = (moved(each, name) for each in value)
        return value.__class__(*made) if hasattr(value, "_fields") else value.__class__(made)
    return value


class Side:
    """Every method is a step; what it returns is plain data, and an error of the engine is an answer like others."""

    def __init__(self, streams):
        self.streams = streams
        self.held = []
        self.opened = {}
        self.made = set()
        self.sessions = {}
        self.waits = {}
        self.paused = set()
        self.marked = 0.0
        self.readers = 0

    async def take(self, step):
        try:
            return await getattr(self, step.name)(*step.arguments, **step.options)
        except HeadraceError as error:
            return canonical.error_of(error)

    async def clear(self):
        """Leave nothing behind: the next program finds an engine without streams."""
        for session in self.sessions.values():
            with suppress(HeadraceError):  # its stream may be gone
                await session.aclose()
        for name in self.made:
            with suppress(HeadraceError):  # deleted by the program
                await self.streams.delete_stream(name)

    # -- streams ------------------------------------------------------------------------------------

    async def create(self, name, **config):
        return await self._made(name, self.streams.create_stream, config)

    async def update(self, name, **config):
        return await self._made(name, self.streams.update_stream, config)

    async def create_or_update(self, name, **config):
        return await self._made(name, self.streams.create_or_update_stream, config)

    async def _made(self, name, call, config):
        self.made.add(name)
        stream = await call(StreamConfig(name=name, **config))
        self.opened[name] = stream
        return canonical.stream_of(stream.cached_info)["config"]

    async def _stream(self, name):
        if name not in self.opened:
            self.opened[name] = await self.streams.stream(name)
        return self.opened[name]

    async def delete(self, name):
        self.opened.pop(name, None)
        await self.streams.delete_stream(name)

    async def info(self, name, *, subject=">"):
        stream = await self._stream(name)
        return canonical.stream_of(await stream.info(deleted_details=True, subject_filter=subject))

    async def names(self, subject=None):
        return [name async for name in self.streams.stream_names(subject=subject)]

    async def listed(self, subject=None):
        return [canonical.stream_of(info) async for info in self.streams.list_streams(subject=subject)]

    async def by_subject(self, subject):
        return await self.streams.stream_name_by_subject(subject)

    # -- messages -----------------------------------------------------------------------------------

    async def publish(self, subject, data=b"x", *, msg_id=None, headers=None, expect=None, **options):
        made = StreamPublishOptions(expect=Expect(**expect) if expect else None, retry_attempts=0, **options)
        ack = await self.streams.publish(subject, data, headers=headers, msg_id=msg_id, options=made)
        return canonical.ack_of(ack)

    async def publish_many(self, *messages):
        """Messages are (subject, data, id)."""
        made = [StreamMessage(subject, data, msg_id=msg_id) for subject, data, msg_id in messages]
        return [
            canonical.error_of(each) if isinstance(each, Exception) else canonical.ack_of(each)
            for each in await self.streams.publish_many(made)
        ]

    async def publish_async(self, *messages):
        """The same, each with a future of its own."""
        futures = [await self.streams.publish_async(subject, data, msg_id=msg) for subject, data, msg in messages]
        await self.streams.publish_async_complete(LONG)
        found = []
        for future in futures:
            try:
                found.append(canonical.ack_of(await future))
            except HeadraceError as error:
                found.append(canonical.error_of(error))
        return found

    async def publish_atomic(self, *messages):
        made = [StreamMessage(subject, data, msg_id=msg_id) for subject, data, msg_id in messages]
        return canonical.ack_of(await self.streams.publish_atomic(made))

    async def purge(self, name, **options):
        return await (await self._stream(name)).purge(PurgeOptions(**options))

    async def get(self, name, sequence, subject=None):
        return canonical.raw_of(await (await self._stream(name)).get_msg(sequence, subject=subject))

    async def last(self, name, subject):
        return canonical.raw_of(await (await self._stream(name)).get_last_msg_for_subject(subject))

    async def remove(self, name, sequence):
        await (await self._stream(name)).delete_msg(sequence)

    async def secure_remove(self, name, sequence):
        await (await self._stream(name)).secure_delete_msg(sequence)

    async def read(self, name, **options):
        return [canonical.raw_of(each) for each in await (await self._stream(name)).read(**options)]

    async def batch(self, name, **options):
        return [canonical.raw_of(each) async for each in (await self._stream(name)).get_batch(GetBatch(**options))]

    async def last_for(self, name, *subjects, **options):
        found = (await self._stream(name)).get_last_for(subjects, **options)
        return [canonical.raw_of(each) async for each in found]

    # -- consumers ----------------------------------------------------------------------------------

    async def consumer(self, stream, how="create_or_update", **config):
        """`how` is create, update or create_or_update."""
        call = getattr(self.streams, f"{how}_consumer")
        consumer = await call(stream, ConsumerConfig(**config))
        self.waits[stream, consumer.name] = (consumer.cached_info.config.max_ack_pending or FEW) < FEW
        return canonical.consumer_config_of(consumer.cached_info.config)

    async def drop(self, stream, name):
        session = self.sessions.pop((stream, name), None)
        await self.streams.delete_consumer(stream, name)
        self.paused.discard((stream, name))
        if session is not None:
            await session.aclose()

    async def consumers(self, stream):
        return [name async for name in (await self._stream(stream)).consumer_names()]

    async def consumers_listed(self, stream):
        return [canonical.consumer_of(info) async for info in (await self._stream(stream)).list_consumers()]

    async def consumer_info(self, stream, name):
        return canonical.consumer_of(await (await self.streams.consumer(stream, name)).info())

    def _may_park(self, stream, name):
        """Whether a server may keep a pull without an end: at `max_ack_pending`, and while it is paused."""
        return (stream, name) in self.paused or self.waits.get((stream, name))

    async def _session(self, stream, name):
        if (stream, name) not in self.sessions:
            self.sessions[stream, name] = (await self.streams.consumer(stream, name)).session(SessionOptions())
        return self.sessions[stream, name]

    async def pull(self, stream, name, limit, *, wait=None, **options):
        """All of `limit` that come at once, by a session of its own; with `wait` by the one that stays."""
        if wait is not None:
            return self._holding(*await self._all(await self._session(stream, name), limit, wait, options))
        wait = PULL if self._may_park(stream, name) else 0.0
        look = SessionOptions(max_messages=limit, no_wait=not wait, expires=wait, once=True)
        session = (await self.streams.consumer(stream, name)).session(look)
        try:
            return self._holding(*await self._all(session, limit, wait, options))
        finally:
            await session.aclose()

    async def _all(self, session, limit, wait, options):
        """What came, in however many parts, and the error that ended it."""
        got = []
        try:
            while len(got) < limit and (more := await session.pull(limit - len(got), wait, **options)):
                got += more
        except HeadraceError as error:
            if not got:
                raise
            return got, error
        return got, None

    async def fetch(self, stream, name, limit, *, wait=None, max_bytes=None):
        """By the public call: `fetch_no_wait`, or `fetch` and `fetch_bytes` for so many seconds."""
        consumer = await self.streams.consumer(stream, name)
        if max_bytes is not None:
            batch = consumer.fetch_bytes(max_bytes, max_wait=wait or PULL)
        elif wait is None and not self._may_park(stream, name):
            batch = consumer.fetch_no_wait(limit)
        else:
            batch = consumer.fetch(limit, max_wait=wait or PULL)
        got = self._holding(await batch)
        return {"got": got, "reason": batch.reason.value, "why": batch.error and canonical.error_of(batch.error)}

    def _holding(self, messages, error=None):
        self.held += messages
        told = [canonical.msg_of(msg) for msg in messages]
        return told if error is None else [*told, canonical.error_of(error)]

    async def settle(self, place, how="ack", *, delay=None, reason=None):
        """Settle what was handed out as the nth, and wait until the engine has it. Nothing held: nothing happens."""
        if not self.held:
            return None
        msg = self.held[place % len(self.held)]
        given = delay if how == "nak" else reason
        await (getattr(msg, how)() if given is None else getattr(msg, how)(given))
        if how != "double_ack":
            await msg._session.flush()
        return msg.metadata.sequence.stream

    async def settle_sequence(self, stream, name, sequence, how):
        """The same for the latest delivery of one message."""
        wanted = (stream, name, sequence)
        for place, msg in reversed(list(enumerate(self.held))):
            facts = msg.metadata
            if (facts.stream, facts.consumer, facts.sequence.stream) == wanted:
                return await self.settle(place, how)
        return None

    async def pause_until(self, stream, name, until):
        await (await self.streams.consumer(stream, name)).pause(until)
        self.paused.add((stream, name))

    async def resume(self, stream, name):
        await (await self.streams.consumer(stream, name)).resume()
        self.paused.discard((stream, name))

    async def ordered(self, stream, count, **config):
        """The first so many messages of a reader of its own, as far as there are some."""
        self.readers += 1
        made = OrderedConsumerConfig(name_prefix=f"reader{self.readers}", **config)
        consumer = await self.streams.ordered_consumer(stream, made)
        got = await consumer.fetch(count, max_wait=PULL * 4)
        return [(msg.subject, msg.metadata.sequence.stream, msg.data, canonical.headers_of(msg)) for msg in got]

    # -- time ---------------------------------------------------------------------------------------

    async def mark(self):
        """What `later` counts from."""
        self.marked = time.monotonic()

    async def later(self, stream, name, limit, least):
        """Exactly `limit` messages, so many seconds after the mark: never early, late as the machine is."""
        session = await self._session(stream, name)
        got = []
        while len(got) < limit and (more := await session.pull(limit - len(got), LONG)):
            got += more
        waited = time.monotonic() - self.marked
        assert waited > least - EARLY, f"{[msg.subject for msg in got]} came after {waited:.4f} s, not {least}"
        return self._holding(got)

    async def until_left(self, name, count, least):
        """All but so many messages of a stream go by their age, so many seconds after the mark."""
        return await self._until(least, lambda: self._has(name, count))

    async def _has(self, name, count):
        return (await (await self._stream(name)).info()).state.messages == count

    async def until_gone(self, stream, name, least):
        """A consumer goes by itself."""
        return await self._until(least, lambda: self._is_gone(stream, name))

    async def _is_gone(self, stream, name):
        try:
            await self.streams.consumer(stream, name)
        except ConsumerNotFoundError:
            return True
        return False

    async def _until(self, least, reached):
        deadline = time.monotonic() + LONG
        while not await reached():
            assert time.monotonic() < deadline, f"not even after {LONG} s"
            await asyncio.sleep(0.01)
        waited = time.monotonic() - self.marked
        assert waited > least - EARLY, f"after {waited:.4f} s already, not {least}"

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)
