"""A state machine that drives an engine and the model side by side: here the embedded engine, on virtual time."""

import asyncio
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from headrace import embedded
from headrace.streams.config import (
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    Expect,
    PurgeOptions,
    RetentionPolicy,
    Rollup,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.errors import ApiError, StreamError
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import VirtualLoop
from tests.model.model import Config, Model, RefusedError

SUBJECTS = st.sampled_from(["s.a", "s.b", "s.c"])
IDS = st.sampled_from(["one", "two", "three"])
QUICK = "HEADRACE_SHRINK" not in os.environ
NAMES = st.sampled_from(["x", "y"])
NEAR = st.integers(-2, 2)
PLACE = st.integers(0, 30)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Machine(RuleBasedStateMachine):
    directory = False
    virtual = True
    scale = 1
    """Of every length of time in a program. On real time nobody waits, and nothing may run out meanwhile."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop if self.virtual else None)
        self.name = "S"
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-model-")) if self.directory else None
        self.place = self.folder / "0" if self.folder else ":memory:"
        self.generation = 0
        self.sessions = {}
        self.held = []
        self.engine = None

    # -- life ---------------------------------------------------------------------------------------

    def run(self, coroutine):
        return self.runner.run(coroutine)

    async def opened(self):
        self.context = embedded.open(self.place)
        return await self.context.__aenter__()

    @initialize(
        limit=st.sampled_from([None, 3, 6]),
        each=st.sampled_from([None, None, 2]),
        kind=st.sampled_from(["limits", "discard new", "workqueue"]),
        age=st.sampled_from([None, None, 20.03]),
    )
    def begin(self, limit, each, kind, age):
        new, work = kind == "discard new", kind == "workqueue"
        age = None if age is None else age * self.scale
        config = Config(limit, None if new else each, new, work, window=2.05 * self.scale, max_age=age)
        self.model = Model(config)
        self.run(self._begin(config))
        self.prepare()

    def prepare(self):
        """What every program begins with."""

    async def _begin(self, config):
        self.engine = await self.opened()
        self.stream = await self.engine.create_stream(
            StreamConfig(
                name=self.name,
                subjects=["s.>"],
                max_messages=config.max_messages,
                max_messages_per_subject=config.max_per_subject,
                discard=DiscardPolicy.NEW if config.discard_new else DiscardPolicy.OLD,
                retention=RetentionPolicy.WORKQUEUE if config.workqueue else RetentionPolicy.LIMITS,
                duplicate_window=config.window,
                max_age=config.max_age,
                allow_rollup=True,
                allow_atomic=True,
            )
        )

    def teardown(self):
        try:
            if self.engine is not None:
                self.run(self.engine.aclose())
        finally:
            self.runner.close()
            if self.folder:
                shutil.rmtree(self.folder)

    def step(self, model, engine):
        """Both do it; results or error codes are the same."""
        self.model.pass_time(self.runner.get_loop().time())
        try:
            wanted = model()
        except RefusedError as refused:
            wanted = refused.code
        assert self.run(answer(engine)) == wanted

    # -- rules --------------------------------------------------------------------------------------

    @rule(
        subject=SUBJECTS,
        data=st.binary(max_size=8),
        msg_id=st.none() | IDS,
        last=st.none() | NEAR,
        topic=st.none() | NEAR,
        last_id=st.none() | st.none() | IDS,
        rollup=st.none() | st.none() | st.sampled_from(Rollup),
    )
    def publish(self, subject, data, msg_id, *, last, topic, last_id, rollup):
        rollup = self.rollup_of(rollup)
        self.model.pass_time(self.runner.get_loop().time())
        mine = self.model.on(subject)
        last = None if last is None or last % 2 else max(0, self.model.last + last)
        topic = None if topic is None or topic % 2 else max(0, (mine[-1] if mine else 0) + topic)
        given = (last, topic, last_id) != (None, None, None)
        expected = {"last": last, "last_for_topic": topic, "last_id": last_id}
        expect = Expect(**expected) if given else None

        async def engine():
            options = StreamPublishOptions(expect=expect, rollup=rollup)
            ack = await self.engine.publish(subject, data, msg_id=msg_id, options=options)
            return ack.sequence, ack.duplicate

        kind = None if rollup is None else rollup.value
        self.step(lambda: self.model.publish(subject, data, msg_id, rollup=kind, **expected), engine)

    @rule(
        messages=st.lists(
            st.tuples(SUBJECTS, st.binary(max_size=8), st.none() | st.none() | IDS), min_size=1, max_size=5
        )
    )
    def publish_atomic(self, messages):
        async def engine():
            ack = await self.engine.publish_atomic([StreamMessage(s, d, msg_id=i) for s, d, i in messages])
            return ack.sequence, ack.batch_size

        self.step(lambda: self.model.publish_atomic(messages), engine)

    @rule(count=st.integers(1, 5), subject=SUBJECTS)
    def publish_some(self, count, subject):
        for number in range(count):
            self.publish_plain(subject, b"%d" % number)

    def publish_plain(self, subject, data):
        async def engine():
            ack = await self.engine.publish(subject, data)
            return ack.sequence, ack.duplicate

        self.step(lambda: self.model.publish(subject, data), engine)

    @rule(subject=st.just(">") | SUBJECTS, keep=st.integers(0, 2), sequence=st.none() | PLACE)
    def purge(self, subject, keep, sequence):
        subject, keep, sequence = self.purge_options(subject, keep, sequence or None)
        options = PurgeOptions(
            subject=None if subject == ">" else subject, sequence=sequence, keep=None if sequence else keep
        )
        self.step(lambda: self.model.purge(subject, sequence, keep), lambda: self.stream.purge(options))

    def rollup_of(self, rollup):
        """What of it is asked for."""
        return rollup

    def purge_options(self, subject, keep, sequence):
        """What of it is asked for."""
        return subject, keep, sequence

    @rule(sequence=st.integers(1, 30))
    def delete(self, sequence):
        self.step(lambda: self.model.delete(sequence), lambda: self.stream.delete_msg(sequence))

    @rule(
        name=NAMES,
        start=st.sampled_from(["all", "all", "new"]),
        only=st.sampled_from([">", "s.a"]),
        wait=st.sampled_from([1.03, 3.07]),
        most=st.sampled_from([None, 2]),
        deliver=st.sampled_from([None, None, 2]),
    )
    def add_consumer(self, name, start, only, *, wait, most, deliver):
        if name in self.model.consumers or (self.model.config.workqueue and self.model.consumers):
            return
        if self.model.config.workqueue:
            start = "all"
        wait *= self.scale
        config = ConsumerConfig(
            durable=name,
            deliver_policy=DeliverPolicy.NEW if start == "new" else DeliverPolicy.ALL,
            filter_subject=None if only == ">" else only,
            ack_wait=wait,
            max_ack_pending=most,
            max_deliver=deliver,
        )
        self.model.pass_time(self.runner.get_loop().time())
        fields = {"filter": only, "ack_wait": wait, "max_ack_pending": most, "max_deliver": deliver}
        self.model.add_consumer(name, start, **fields)
        self.run(self.stream.create_consumer(config))

    @rule(name=NAMES)
    def drop_consumer(self, name):
        if self.model.consumers.pop(name, None):
            self.held = [each for each in self.held if each[1] != name]
            self.run(self._drop(name))

    async def _drop(self, name):
        if session := self.sessions.pop(name, None):
            await session.aclose()
        await self.stream.delete_consumer(name)

    async def session(self, name):
        if name not in self.sessions:
            self.sessions[name] = (await self.stream.consumer(name)).session(SessionOptions())
        return self.sessions[name]

    @rule(name=NAMES, seconds=st.sampled_from([None, 0.77, 5.55]))
    def pause(self, name, seconds):
        if name in self.model.consumers:
            seconds = None if seconds is None else seconds * self.scale
            now = self.runner.get_loop().time()
            self.model.consumers[name].paused_until = 0.0 if seconds is None else now + seconds
            self.run(self._pause(name, seconds))

    async def _pause(self, name, seconds):
        consumer = await self.stream.consumer(name)
        if seconds is None:
            await consumer.resume()
        else:
            now = self.engine.clock.now_ns() // 1_000
            await consumer.pause(EPOCH + timedelta(microseconds=now, seconds=seconds))

    @rule(name=NAMES, limit=st.integers(1, 5))
    def pull(self, name, limit):
        if name not in self.model.consumers:
            return
        self.model.pass_time(self.runner.get_loop().time())
        messages = self.run(self._pull(name, limit))
        self.held += [(msg, name, msg.metadata.sequence.stream) for msg in messages]
        self.model.pulled(name, limit, [facts(msg) for msg in messages])

    async def _pull(self, name, limit):
        return await (await self.session(name)).pull(limit, 0)

    @precondition(lambda self: self.held)
    @rule(place=PLACE, how=st.sampled_from(["ack", "double_ack", "term"]))
    def settle(self, place, how):
        msg, name, sequence = self.held.pop(place % len(self.held))
        self.model.pass_time(self.runner.get_loop().time())
        self.run(self._settle(msg, getattr(msg, how)()))
        self.model.ack(name, sequence)

    async def _settle(self, msg, call):
        """Settle it so that the engine's infos say it."""
        await call

    @precondition(lambda self: self.held)
    @rule(place=PLACE, delay=st.sampled_from([0, 0, 0.51, 5.02]))
    def nak(self, place, delay):
        msg, name, sequence = self.held[place % len(self.held)]
        self.model.pass_time(self.runner.get_loop().time())
        one = self.model.consumers[name].pending.get(sequence)
        if one is None or one.nacked or one.due <= self.model.now:
            return
        self.held.remove((msg, name, sequence))
        delay *= self.scale
        self.run(self._settle(msg, msg.nak(delay or None)))
        self.model.nak(name, sequence, delay)

    @precondition(lambda self: self.held)
    @rule(place=PLACE)
    def in_progress(self, place):
        msg, name, sequence = self.held[place % len(self.held)]
        self.model.pass_time(self.runner.get_loop().time())
        one = self.model.consumers[name].pending.get(sequence)
        if one is not None and not one.nacked and one.due > self.model.now:
            self.run(self._settle(msg, msg.in_progress()))
            self.model.in_progress(name, sequence)

    @precondition(lambda self: self.virtual)
    @rule(seconds=st.sampled_from([0.11, 0.53, 1.09, 3.3, 11.0]))
    def time_passes(self, seconds):
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.directory)
    @rule(clean=st.booleans())
    def crash_and_reopen(self, clean):
        """Killed: what was written is there (a copy of the files, taken under way). Closed: the same, in order."""
        self.run(self._reopen(clean))
        self.model.pass_time(self.runner.get_loop().time())
        if clean:
            self.model.close()
        else:
            self.model.crash()
        self.held.clear()

    async def _reopen(self, clean):
        for session in self.sessions.values():
            await session.flush()
        if not clean:
            self.generation += 1
            copy = self.folder / str(self.generation)
            shutil.copytree(self.place, copy, ignore=shutil.ignore_patterns("wake"))
        for session in self.sessions.values():
            await session.aclose()
        self.sessions.clear()
        await self.engine.aclose()
        if not clean:
            self.place = copy
        self.engine = await self.opened()
        self.stream = await self.engine.stream(self.name)

    # -- what must hold after each step -------------------------------------------------------------

    @invariant()
    def same_state(self):
        if self.engine is None:
            return
        self.model.pass_time(self.runner.get_loop().time())
        self.run(self._same_state())

    async def _same_state(self):
        for name, wanted in self.model.consumers.items():
            self.same_consumer(name, wanted, await (await self.stream.consumer(name)).info())
        got = [(each.sequence, each.subject, each.data) for each in await self.stream.read(limit=1_000)]
        assert got == [(n, one.subject, one.data) for n, one in self.model.stored.items()]
        state = (await self.stream.info()).state
        first = min(self.model.stored, default=self.model.last + 1)
        assert (state.messages, state.last_sequence) == (len(got), self.model.last)
        self.same_first(first, state)

    def same_first(self, first, state):
        assert state.first_sequence == first or not self.model.last, f"first is {state.first_sequence}, not {first}"

    def same_consumer(self, name, wanted, info):
        assert info.num_pending == len(self.model.coming(wanted)), f"{name}: num_pending {info.num_pending}"
        assert info.delivered.consumer == wanted.delivered[0], f"{name}: delivered {info.delivered}"
        assert info.paused is (wanted.paused_until > self.model.now), (
            f"{name}: {info.pause_remaining} of the pause left"
        )
        if wanted.max_deliver is None:
            assert info.num_ack_pending == len(wanted.pending), f"{name}: {info.num_ack_pending}, {wanted.pending}"
            again = sum(one.deliveries > 1 for one in wanted.pending.values())
            assert info.num_redelivered == again, f"{name}: redelivered {info.num_redelivered}, not {again}"
            lowest = min(wanted.pending, default=None)
            assert lowest is None or info.ack_floor.stream < lowest, f"{name}: floor {info.ack_floor} over {lowest}"
            if lowest is None and not wanted.disturbed:
                pair = (info.ack_floor.consumer, info.ack_floor.stream)
                assert pair == (info.delivered.consumer, info.delivered.stream), f"{name}: floor {pair}"


async def answer(engine):
    try:
        return await engine()
    except (ApiError, StreamError) as error:
        return error.err_code


def facts(msg):
    metadata = msg.metadata
    return metadata.sequence.stream, metadata.num_delivered, metadata.sequence.consumer, msg.data


def check(machine, examples, steps, *, same):
    """`same`: the programs of every run, so that a green suite stays green; else new ones."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            derandomize=same,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=(Phase.explicit, Phase.generate) if QUICK else tuple(Phase),
        ),
    )
