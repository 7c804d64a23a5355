"""Dead letters on a real broker: thousands are seen, what stays is not lost, whatever ends a redrive."""

import asyncio
import os
import signal
import sys
from collections import Counter

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from headrace.core.broker import TopicOptions
from headrace.core.errors import BrokerTimeoutError, RejectError, UnsupportedError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.deadletters import DeadLetters, RedriveReport, in_log
from headrace.flow import letter as record
from headrace.flow.judge import DeadLetter
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import OffsetOutOfRangeError
from headrace.kafka.options import KafkaOptions
from headrace.kafka.reading import KafkaSubscribeOptions
from tests.integration.kafka.raw import ask, commit, committed, eventually, new_name, new_topic, records, run, write

pytestmark = pytest.mark.servers

GROUP = "headrace-redrive"


async def bury(broker, source, count, *, partitions=1, reason=lambda number: "why", **fields):
    """A topic with so many letters of messages of `source`; its name."""
    dead = new_name("dead")
    await broker.declare(dead, TopicOptions(partitions=partitions))
    letters = [
        Message(
            topic=dead, key=b"%d" % number, body=b"%d" % number, id=f"letter-{number}",
            headers=Headers([
                (record.ID, f"o{number}"), (record.SOURCE, source), (record.REASON, reason(number)), (record.PASS, "1"),
            ]),
        )
        for number in range(count)
    ]  # fmt: skip
    for result in await broker.publish_batch([each.replace(**fields) for each in letters]):
        assert not isinstance(result, Exception)
    return dead


def redriven(server, source, partitions=1):
    """How often each letter was sent back."""
    found = Counter()
    for partition in range(partitions):
        found.update(int(each.value()) for each in records(server, source, partition))
    return found


def once(count):
    return Counter(range(count))


def test_all_are_seen_and_what_is_not_wanted_stays(kafka_server):
    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(
                broker, source, 3_000, partitions=4, reason=lambda number: "odd" if number // 10 % 10 == 1 else "even"
            )
            room = DeadLetters(broker, dead)
            assert {each.id for each in await room.read(limit=10_000)} == {f"o{number}" for number in range(3_000)}
            assert len(await room.read(limit=700)) == 700
            for number in (0, 1_500, 2_999):
                assert (await room.get(f"o{number}")).message.body == b"%d" % number
            assert {each.reason: each.count for each in await room.by_error()} == {"odd": 300, "even": 2_700}
            assert await room.redrive(dry_run=True) == RedriveReport(3_000, 0, 0)
            assert await room.redrive(where=lambda each: each.reason == "odd") == RedriveReport(300, 2_700, 0)
            assert await room.redrive(where=lambda each: each.id == "o7") == RedriveReport(1, 2_699, 0)
            assert await room.redrive(limit=99) == RedriveReport(99, 0, 0)
            assert await room.redrive(dry_run=True) == RedriveReport(2_600, 0, 0)
        assert set(redriven(kafka_server, source).values()) == {1}

    run(story())


def test_in_the_end_the_group_has_passed_all(kafka_server):
    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(broker, source, 500, partitions=4)
            room = DeadLetters(broker, dead)
            assert await room.redrive(where=lambda each: int(each.id[1:]) % 2) == RedriveReport(250, 250, 0)
            assert await room.redrive() == RedriveReport(250, 0, 0)
            assert await room.redrive() == RedriveReport(0, 0, 0)
        assert redriven(kafka_server, source) == once(500)
        assert committed(kafka_server, GROUP, dead, 4) == {n: len(records(kafka_server, dead, n)) for n in range(4)}

    run(story())


def test_more_stays_than_may_be_unfinished(kafka_server, monkeypatch):
    """The engine's bound is told, never taken for the end; a wider one shows all."""
    monkeypatch.setattr(in_log, "_PATIENCE", 2)

    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(broker, source, 5_000)

            def last(each):
                return each.id == "o4999"

            narrow = DeadLetters(broker, dead, subscribe=KafkaSubscribeOptions(max_span=500))
            for dry_run in (True, False):
                with pytest.raises(BrokerTimeoutError, match="more are there"):
                    await narrow.redrive(where=last, dry_run=dry_run)
            assert len(await narrow.read(limit=10_000)) == 5_000
            room = DeadLetters(broker, dead)
            assert await room.redrive(where=last, dry_run=True) == RedriveReport(1, 4_999, 0)
            assert await room.redrive(where=last) == RedriveReport(1, 4_999, 0)
            assert await narrow.redrive(limit=5) == RedriveReport(5, 0, 0)
        assert redriven(kafka_server, source) == Counter([0, 1, 2, 3, 4, 4_999])

    run(story())


def test_as_many_gaps_as_are_allowed_are_remembered(kafka_server):
    """More would not fit into what a commit may say, and be forgotten without a word."""

    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(broker, source, 700)
            with pytest.raises(UnsupportedError, match="300 gaps"):
                await DeadLetters(broker, dead).redrive(where=lambda each: int(each.id[1:]) % 2)
            assert redriven(kafka_server, source).total() == 300
            assert await DeadLetters(broker, dead).redrive() == RedriveReport(400, 0, 0)
        assert redriven(kafka_server, source) == once(700)

    run(story())


def test_what_is_refused_stays(kafka_server):
    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap, options=KafkaOptions(max_message_bytes=10_000)) as broker:
            dead = await bury(broker, source, 20)
            write(kafka_server, dead, b"a stranger")

            def swollen(message):
                return message.replace(body=b"x" * 20_000) if int(message.body) % 5 == 0 else message

            assert await DeadLetters(broker, dead).redrive(edit=swollen) == RedriveReport(16, 0, 5)
            assert await DeadLetters(broker, dead).redrive() == RedriveReport(4, 0, 1)
        assert redriven(kafka_server, source) == once(20)

    run(story())


def test_what_dies_again_meanwhile_waits_for_the_next_time(kafka_server):
    """A worker that goes on refusing must not keep a redrive busy for ever."""

    async def refuse(delivery):
        raise RejectError("never")

    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(broker, source, 300)
            worker = Worker(broker, source, refuse, group=new_name("group"), on_exhausted=DeadLetter(dead))
            async with worker:
                for turn in (1, 2):
                    assert await DeadLetters(broker, dead).redrive(rate=500) == RedriveReport(300, 0, 0)
                    await eventually(lambda turn=turn: worker.stats.dead_lettered == 300 * turn)
        assert redriven(kafka_server, source) == Counter(dict.fromkeys(range(300), 2))

    run(story())


def end_of(server, topic):
    """How many records its one partition has. A topic that is written to just now has no last one to read."""
    (found,) = ask(server, lambda admin: admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest()}))
    return found.offset


SLOWLY = """
import asyncio, sys
from headrace.deadletters import DeadLetters
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.reading import KafkaSubscribeOptions

async def main(server, dead):
    async with KafkaBroker(server) as broker:
        options = KafkaSubscribeOptions(session_timeout=6, commit_interval=0.2)
        letters = DeadLetters(broker, dead, subscribe=options)
        await letters.redrive(where=lambda letter: int(letter.id[1:]) // 10 % 2, rate=20)

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_killed_redrive_loses_nothing(kafka_server):
    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(broker, source, 400)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SLOWLY, kafka_server.bootstrap, dead, env=os.environ
            )
            await eventually(lambda: end_of(kafka_server, source) > 60, patience=40)
            process.send_signal(signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
            sent = redriven(kafka_server, source)
            assert committed(kafka_server, GROUP, dead) == {0: 0}, "it passed what was to stay"
            report = await DeadLetters(broker, dead).redrive()
            assert report.failed == report.skipped == 0
        twice = sum(count > 1 for count in redriven(kafka_server, source).values())
        assert set(redriven(kafka_server, source)) == set(range(400))
        assert report.moved == 400 - len(sent) + twice
        assert twice < len(sent), "what was moved was not remembered"

    run(story())


def test_two_redrives_at_once_share_the_letters(kafka_server):
    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as first, KafkaBroker(kafka_server.bootstrap) as second:
            dead = await bury(first, source, 400, partitions=4)
            reports = await asyncio.gather(*(DeadLetters(broker, dead).redrive(rate=100) for broker in (first, second)))
        assert [report.failed + report.skipped for report in reports] == [0, 0]
        found = redriven(kafka_server, source)
        assert set(found) == set(range(400))
        assert sum(report.moved for report in reports) == found.total(), "what changes hands may be sent twice"

    run(story())


def test_where_the_group_stood_is_gone(kafka_server):
    """Retention is no reason never to redrive again."""

    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(broker, source, 10)
            commit(kafka_server, GROUP, dead, 3)
            ask(kafka_server, lambda admin: admin.delete_records([TopicPartition(dead, 0, 6)]))
            with pytest.raises(OffsetOutOfRangeError):
                await DeadLetters(broker, dead).redrive()
            options = KafkaSubscribeOptions(on_out_of_range="earliest")
            assert await DeadLetters(broker, dead, subscribe=options).redrive() == RedriveReport(4, 0, 0)
        assert redriven(kafka_server, source) == Counter(range(6, 10))

    run(story())


def test_a_dry_run_makes_nothing(kafka_server):
    """As `headrace dead redrive --dry-run` does it: with a broker that creates nothing, where no redrive ever was."""

    async def story():
        source = new_topic(kafka_server)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            dead = await bury(broker, source, 5)
        async with KafkaBroker(kafka_server.bootstrap, create=False) as broker:
            assert await DeadLetters(broker, dead).redrive(dry_run=True) == RedriveReport(5, 0, 0)
            assert len(await DeadLetters(broker, dead).read()) == 5
        assert redriven(kafka_server, source) == Counter()

    run(story())
