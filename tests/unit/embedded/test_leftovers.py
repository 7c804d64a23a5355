"""What nobody needs is found without reading what is still in front of the consumers (3.5.9, 3.9.1)."""

import random
from dataclasses import replace
from itertools import count

import pytest

from headrace import embedded
from headrace.embedded.consumers import shared
from headrace.embedded.consumers.leftovers import leftovers
from headrace.embedded.consumers.rows import consumers_of, leases_of, settings_of
from headrace.streams.config import ConsumerConfig, RetentionPolicy, StreamMessage
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, stream_of

LIMITS, WORKQUEUE, INTEREST = RetentionPolicy.LIMITS, RetentionPolicy.WORKQUEUE, RetentionPolicy.INTEREST


def by_definition(connection, retention):
    """Every message, asked of every consumer."""
    gone = []
    consumers = []
    for row in consumers_of(connection, 1):
        held = {sequence for lease in leases_of(connection, row.id) for _, sequence in lease.unsettled()}
        held.update(seq for (seq,) in connection.execute("SELECT seq FROM pending WHERE consumer = ?", (row.id,)))
        consumers.append((row, held, settings_of(row.config).filter.matches))
    rows = connection.execute("SELECT seq, name FROM msg_1 JOIN subject ON subject.id = msg_1.subject ORDER BY seq")
    for seq, subject in rows:
        if retention is WORKQUEUE:
            free = any(
                row.since < seq <= row.delivered_s and seq not in held and wanted(subject)
                for row, held, wanted in consumers
            )
        else:
            free = not any(
                seq in held or (seq > row.delivered_s and wanted(subject)) for row, held, wanted in consumers
            )
        if free:
            gone.append(seq)
    return gone


def in_pages(connection, most):
    found = []
    while page := leftovers(connection, 1, found[-1] if found else 0, most):
        found += page
    return found


async def use(stream, filters, chance):
    """Consumers of these filters take and settle some."""
    for number, wanted in enumerate(filters):
        _, session = await reader(stream, durable=f"c{number}", **wanted)
        for message in await pull(session, limit=chance.randrange(1, 30)):
            if chance.random() < 0.6:
                await message.ack()
            elif chance.random() < 0.3:
                await message.nak(1000)
        await session.flush()


FILTERS = {
    WORKQUEUE: [[{}], [{"filter_subject": "s.a"}, {"filter_subjects": ["s.b", "s.c"]}], [{"filter_subject": "s.c"}]],
    INTEREST: [
        [{}],
        [{}, {}],
        [{"filter_subject": "s.a"}, {}],
        [{"filter_subject": "s.*"}, {"filter_subject": "s.b"}, {"filter_subject": "s.a"}],
        [],
    ],
}
CASES = [(kind, at, subjects) for kind in FILTERS for at in range(len(FILTERS[kind])) for subjects in ("a", "abc")]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("retention", "at", "subjects"), CASES)
@virtual_time
async def test_finds_the_same_as_by_definition(retention, at, subjects, seed):
    chance = random.Random(seed)
    stored_as = WORKQUEUE if retention is WORKQUEUE else LIMITS  # so that messages nobody wants are stored too
    async with stream_of(retention=stored_as) as (streams, stream):
        streams._room.consumers.shared.remove = lambda stream_id, sequences: None
        await streams.publish_many([StreamMessage("s.a", b"")] * 5)
        await streams.publish_many([StreamMessage(f"s.{chance.choice(subjects)}", b"") for _ in range(60)])
        await use(stream, FILTERS[retention][at], chance)
        for sequence in chance.sample(range(1, 66), 10):
            await stream.delete_msg(sequence)
        if retention is INTEREST:
            await streams.update_stream(replace(stream.cached_info.config, retention=INTEREST))

        def compare(connection):
            wanted = by_definition(connection, retention)
            assert leftovers(connection, 1) == wanted
            for most in (1, 3, 64):
                assert in_pages(connection, most) == wanted

        await streams._store.consumers.call(compare)


async def steps(path, backlog):
    """Instructions of SQLite to find what is left over beside so many that nobody was given."""
    async with stream_of(path=path, retention=WORKQUEUE) as (streams, stream):
        await streams.publish_many([StreamMessage("s.a", b"")] * (20 + backlog))
        _, session = await reader(stream)
        for message in (await pull(session, limit=20))[::2]:
            await message.ack()
        await session.flush()
        counter = count()

        def look(connection):
            connection.set_progress_handler(lambda: next(counter) < 0, 1)
            found = leftovers(connection, 1)
            connection.set_progress_handler(None)
            return found

        assert await streams._store.reader.call(look) == []
        return next(counter)


@virtual_time
async def test_the_backlog_is_not_read():
    assert await steps(":memory:", 5_000) <= await steps(":memory:", 0) + 10


@pytest.mark.parametrize("most", [1, 2, 7])
def test_repaired_in_slices(monkeypatch, tmp_path, most):
    monkeypatch.setattr(shared, "MOST_LEFTOVERS", most)
    monkeypatch.setattr(shared, "MOST_REMOVED", most)

    @virtual_time
    async def run():
        async with stream_of(9, path=tmp_path / "d", retention=INTEREST) as (streams, stream):
            assert (await stream.info()).state.messages == 0
            _, session = await reader(stream)
            await streams.publish_many([StreamMessage("s.a", b"")] * 9)
            streams._room.consumers.shared.remove = lambda stream_id, sequences: None
            for message in (await pull(session))[:-1]:
                await message.ack()
            await session.flush()
            assert (await stream.info()).state.messages == 9
        async with embedded.open(tmp_path / "d") as streams:
            stream = await streams.stream("S")
            assert [message.sequence for message in await stream.read()] == [18]
            await stream.delete_consumer("c")
            assert await stream.read() == []

    run()


@virtual_time
async def test_what_somebody_has_come_to_want_meanwhile_stays(monkeypatch):
    """The look beside the writers is old when its answer comes."""
    async with stream_of(retention=INTEREST) as (streams, stream):
        await stream.create_consumer(ConsumerConfig(durable="old"))
        await stream.create_consumer(ConsumerConfig(durable="new"))
        await streams.publish_many([StreamMessage("s.a", b"")] * 3)
        monkeypatch.setattr(shared, "leftovers", lambda *_, after, **__: [1, 2, 3] if after < 3 else [])
        await stream.delete_consumer("old")
        assert len(await stream.read()) == 3
