"""A consumer in memory whose pulls follow a script: what it gives, when it fails."""

import asyncio
from collections import deque
from datetime import UTC, datetime

from headrace.core.delivery import RELEASE
from headrace.streams.config import ConsumerConfig
from headrace.streams.consumer import Consumer
from headrace.streams.errors import MaxBytesExceededError
from headrace.streams.fetch import wire_size
from headrace.streams.info import ConsumerInfo, SequenceInfo
from headrace.streams.msg import Msg, MsgMetadata, SequencePair


class ScriptedConsumer(Consumer):
    """Its sessions share one queue of messages and errors; everything settled is written down in order."""

    name = "C"
    stream = "S"

    def __init__(self, config=None, *, start=0, available=0, name="C", kind=None):
        self.name = name
        self.kind = kind or ScriptedSession
        self.config = config or ConsumerConfig(name=name)
        self.queue = deque(range(start + 1, start + 1 + available))
        self.pending = available
        self.failures = deque()
        self.settled = []
        self.dead = set()
        self.delivered = {}
        self.sessions = []
        self.arrived = asyncio.Event()

    @property
    def cached_info(self):
        return ConsumerInfo(
            stream="S",
            name=self.name,
            created=datetime(2026, 1, 1, tzinfo=UTC),
            config=self.config,
            delivered=SequenceInfo(0, 0),
            num_pending=self.pending,
        )

    async def info(self):
        return self.cached_info

    async def pause(self, until):
        raise NotImplementedError

    async def resume(self):
        raise NotImplementedError

    def session(self, options):
        self.sessions.append(self.kind(self, options))
        return self.sessions[-1]

    def add(self, *items):
        """Sequences, or errors that the next pull raises."""
        self.queue.extend(items)
        self.arrived.set()


class ScriptedSession:
    def __init__(self, consumer, options):
        self.consumer = consumer
        self.options = options
        self.late_settles = 0
        self.expired_in_buffer = 0
        self.held = 0
        self.stopped = False
        self.closed = False
        self.pulling = False
        self.buffer = deque()

    async def pull(self, limit, wait, *, max_bytes=None):
        assert not self.pulling, "one pull at a time"
        assert limit > 0
        self.pulling = True
        try:
            if not self.buffer and not self._fill(limit) and wait > 0 and not self.stopped:
                deadline = asyncio.get_running_loop().time() + wait
                while not self._fill(limit):
                    self.consumer.arrived.clear()
                    try:
                        async with asyncio.timeout_at(deadline):
                            await self.consumer.arrived.wait()
                    except TimeoutError:
                        return []
            return self._take(limit, max_bytes)
        finally:
            self.pulling = False

    def take(self):
        """From the buffer only, as an engine does: what ran out there is not handed out, but for a last delivery."""
        while self.buffer:
            msg = self.buffer.popleft()
            if self._is_current(msg):
                return msg
        return None

    def _is_current(self, msg):
        if self.alive(msg) or self.consumer.delivered[msg.token] >= (self.consumer.config.max_deliver or 1 << 63):
            return True
        self.expired_in_buffer += 1
        return False

    def _fill(self, limit):
        if self.stopped:
            return False
        queue = self.consumer.queue
        while queue and len(self.buffer) < limit + self.options.prefetch:
            if isinstance(queue[0], Exception):
                if self.buffer:
                    break
                raise queue.popleft()
            sequence = queue.popleft()
            self.consumer.delivered[sequence] = self.consumer.delivered.get(sequence, 0) + 1
            self.buffer.append(Msg(self, "s", b"%d" % sequence, b"", sequence))
        return bool(self.buffer)

    def _take(self, limit, max_bytes):
        taken = []
        while self.buffer and len(taken) < limit:
            if not self._is_current(self.buffer[0]):
                self.buffer.popleft()
                continue
            if max_bytes is not None:
                max_bytes -= wire_size(self.buffer[0])
                if max_bytes < 0:
                    if not taken:
                        raise MaxBytesExceededError
                    break
            taken.append(self.buffer.popleft())
        return taken

    def alive(self, msg):
        return msg.token not in self.consumer.dead

    def facts_of(self, msg):
        return msg.token, self.consumer.delivered[msg.token], 0

    def metadata_of(self, msg):
        return MsgMetadata(
            sequence=SequencePair(msg.token, msg.token),
            num_delivered=1,
            num_pending=len(self.consumer.queue) + len(self.buffer),
            timestamp=datetime(2026, 1, 1, tzinfo=UTC),
            stream="S",
            consumer=self.consumer.name,
        )

    def reply_of(self, msg):
        return "r" * 40

    def settle(self, msg, outcome):
        self.consumer.settled.append((msg.token, outcome))

    def extend(self, msg):
        pass

    async def confirm(self, msg):
        pass

    def keep(self):
        pass

    async def stop(self):
        await asyncio.sleep(0)
        self.stopped = True
        self.consumer.arrived.set()

    async def flush(self):
        pass

    async def aclose(self):
        assert not self.pulling, "closed while somebody pulls"
        self.stopped = True
        await asyncio.sleep(0)
        while self.buffer:
            self.settle(self.buffer.popleft(), RELEASE)
        self.closed = True
