"""A purge goes in slices, so that nobody waits for all of it; what it deletes is fixed when it begins."""

import asyncio

import pytest

from headrace.embedded import stream as stream_module
from headrace.streams.config import PurgeOptions, StreamMessage
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import stream_of

CASES = [
    ({}, []),
    ({"sequence": 9}, [9, 10, 11, 12]),
    ({"keep": 5}, [8, 9, 10, 11, 12]),
    ({"keep": 12}, list(range(1, 13))),
    ({"keep": 99}, list(range(1, 13))),
    ({"subject": "s.a"}, [2, 3, 5, 6, 8, 9, 11, 12]),
    ({"subject": "s.a", "keep": 1}, [2, 3, 5, 6, 8, 9, 10, 11, 12]),
    ({"subject": "s.*", "keep": 4}, [9, 10, 11, 12]),
    ({"subject": "s.*", "sequence": 5}, [5, 6, 7, 8, 9, 10, 11, 12]),
    ({"subject": ">", "keep": 2}, [11, 12]),
    ({"subject": "s.zz"}, list(range(1, 13))),
]


@pytest.mark.parametrize("most", [1, 2, 5, 12, 13])
@pytest.mark.parametrize(("options", "left"), CASES)
def test_purge_in_slices(monkeypatch, most, options, left):
    monkeypatch.setattr(stream_module, "_SLICE", most)

    @virtual_time
    async def run():
        async with stream_of() as (streams, stream):
            await streams.publish_many([StreamMessage(f"s.{name}", b"") for name in "abc" * 4])
            assert await stream.purge(PurgeOptions(**options)) == 12 - len(left)
            assert [each.sequence for each in await stream.read()] == left
            assert (await stream.info()).state.last_sequence == 12

    run()


@pytest.mark.parametrize("options", [{}, {"keep": 0}, {"keep": 2}, {"subject": "s.a"}, {"subject": "s.*", "keep": 2}])
def test_what_comes_meanwhile_stays(monkeypatch, options):
    monkeypatch.setattr(stream_module, "_SLICE", 3)

    @virtual_time
    async def run():
        async with stream_of(40) as (streams, stream):

            async def publish():
                return [(await streams.publish("s.a", b"new")).sequence for _ in range(10)]

            new, purged = await asyncio.gather(publish(), stream.purge(PurgeOptions(**options)))
            left = [each.sequence for each in await stream.read()]
            assert left[-len(new) :] == new
            assert purged == 50 - len(left)
            assert len(left) <= len(new) + options.get("keep", 0)

    run()


@pytest.mark.parametrize("subjects", [3, 100])
@virtual_time
async def test_many_subjects(subjects):
    async with stream_of() as (streams, stream):
        names = [f"s.{number % subjects}" for number in range(600)]
        await streams.publish_many([StreamMessage(name, b"") for name in names] + [StreamMessage("s.x.y", b"")])
        assert await stream.purge(PurgeOptions(subject="s.*", sequence=301)) == 300
        assert await stream.purge(PurgeOptions(subject="s.*", keep=7)) == 293
        assert [each.sequence for each in await stream.read()] == [*range(594, 602)]
