"""Records are deleted before and behind the places of members: what they do then was chosen, and is said aloud."""

import asyncio
import re

import pytest
from confluent_kafka import TopicPartition

from headrace.core.message import new_id
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.journal import judge
from tests.faults.kafka.published import only, places_of, publish_more
from tests.faults.kafka.troupe import PARTITIONS, SHORT, at_work, done_of, publish
from tests.faults.kafka.watching import shared_out
from tests.integration.kafka.raw import ask, committed

COUNT = 5_000
CUT = range(0, PARTITIONS, 2)  # the partitions where records are deleted that were not read; in the others, old ones
FAR = 600  # records beyond a committed place: more than is read in advance, and meanwhile
JUMP = re.compile(r"/(\d+): position (\d+) is out of range, reading goes on at (\d+)")


def jumps(troupe):
    """Partition, from, to: what members have said."""
    found = (JUMP.findall(path.read_text()) for path in troupe.folder.glob("*.log"))
    return [tuple(map(int, each)) for every in found for each in every]


def delete(server, topic, published):
    """Delete beyond what was read, and in the other partitions up to what is finished; where the cut logs begin."""
    places = {number: max(0, place) for number, place in committed(server, topic, topic, PARTITIONS).items()}
    lows = places | {number: min(places[number] + FAR, max(published[number])) for number in CUT}
    ask(server, lambda admin: admin.delete_records([TopicPartition(topic, *low) for low in lows.items()]))
    return {number: lows[number] for number in CUT}


async def all_but_passed(troupe, published):
    """Until all is handled that was not jumped over; whoever takes over before there is a commit jumps once more."""
    async with asyncio.timeout(120):
        while places_of(published) - passed(jumps(troupe)) - done_of(troupe.folder):
            await asyncio.sleep(0.3)


async def cut(folder, server, topic, protocol, policy):
    """Members go on where the policy says; what was published, what they said, where the cut logs begin."""
    published = await publish(server.bootstrap, topic, COUNT)
    more = SHORT | {"options": SHORT["options"] | {"on_out_of_range": policy}}
    async with at_work(folder, server.bootstrap, topic, protocol, pace=0.5, more=more) as troupe:
        await shared_out(troupe)
        lows = await asyncio.to_thread(delete, server, topic, published)
        await publish_more(published, server.bootstrap, topic, 1_000)
        await all_but_passed(troupe, published)
    return published, jumps(troupe), lows


def passed(told):
    """(partition, offset) of all that was jumped over."""
    return {(partition, offset) for partition, start, stop in told for offset in range(start, stop)}


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("policy", ["earliest", "latest"])
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_deleted_before_it_was_read(protocol, policy, tmp_path, kafka_server, in_ci):  # noqa: F811
    """What nobody handles was jumped over aloud; all else is handled, and no commit passes it."""
    if in_ci and (protocol, policy) != ("cooperative", "earliest"):
        pytest.skip("the long run has it")
    topic = f"cut-{new_id()}"
    published, told, lows = asyncio.run(cut(tmp_path, kafka_server, topic, protocol, policy))
    done = done_of(tmp_path)
    missed = places_of(published) - done
    verdict = judge(tmp_path, only(published, done), {})
    print(f"{protocol}, {policy}, {len(missed)} deleted before they were read, {len(told)} jumps: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert not verdict.again
    assert missed, "nothing was deleted before it was read: a run without a fault proves nothing"
    assert missed <= passed(told), "it was passed without a word"
    if policy == "earliest":
        assert all(offset < lows[partition] for partition, offset in missed), "more was passed than was deleted"
        assert all(stop == lows[partition] for partition, _, stop in told)


async def stopped(folder, server, topic, protocol):
    """Members end by themselves; what was published, and what the last of each said."""
    published = await publish(server.bootstrap, topic, COUNT)
    async with at_work(folder, server.bootstrap, topic, protocol, pace=0.5, more=SHORT) as troupe:
        await shared_out(troupe)
        await asyncio.to_thread(delete, server, topic, published)
        async with asyncio.timeout(90):
            codes = await asyncio.gather(*(process.wait() for process in troupe.alive.values()))
        said = {name: troupe.said(name) for name in troupe.alive}
        troupe.alive.clear()
    return published, dict(zip(said, codes, strict=True)), said


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_deleted_before_it_was_read_and_no_policy(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """The default: each member that meets it ends with the error, and no commit passes what was never read."""
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    topic = f"stop-{new_id()}"
    published, codes, said = asyncio.run(stopped(tmp_path, kafka_server, topic, protocol))
    verdict = judge(tmp_path, published, {}, whole=False)
    print(f"{protocol}, stop: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert set(codes.values()) == {1}
    assert all("OffsetOutOfRangeError" in text for text in said.values()), said
