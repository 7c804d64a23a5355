"""Records that are compacted away while their topic is read: all that is left is handled, commits pass the gaps."""

import asyncio

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from headrace.core.message import new_id
from headrace.testing.kafka import KafkaServer
from headrace.testing.plugin import kafka_installed  # noqa: F401
from tests.faults.kafka.journal import judge
from tests.faults.kafka.published import last_of_keys, only, places_of, publish_more
from tests.faults.kafka.troupe import PARTITIONS, SHORT, at_work, done_of, everything
from tests.integration.kafka.raw import ask, committed, records

LATER = "3600000"


def compact_now(server, topic):
    entry = ConfigEntry("min.compaction.lag.ms", "0", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    ask(server, lambda admin: admin.incremental_alter_configs([resource]))


async def compacted(folder, server, topic, protocol, count):
    """Versions of the same keys, compacted when some of them were handled; all that was published."""
    published = {}
    config = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    server.create_topic(topic, PARTITIONS, config | {"min.compaction.lag.ms": LATER})
    for _ in range(4):
        await publish_more(published, server.bootstrap, topic, count // 4)
        await asyncio.sleep(0.15)  # the next one begins a segment
    async with at_work(folder, server.bootstrap, topic, protocol, pace=0.3, more=SHORT):
        await everything(folder, count // 20)
        await asyncio.to_thread(compact_now, server, topic)
        await publish_more(published, server.bootstrap, topic, 1_000)
        await everything(folder, last_of_keys(published))
    return published


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_compacted_while_it_is_read(protocol, tmp_path, kafka_installed, in_ci):  # noqa: F811
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    topic = f"compact-{new_id()}"
    with KafkaServer(libs=kafka_installed, config={"log.cleaner.backoff.ms": "100"}) as server:
        published = asyncio.run(compacted(tmp_path, server, topic, protocol, 4_000 if in_ci else 60_000))
        left = {(number, each.offset()) for number in range(PARTITIONS) for each in records(server, topic, number)}
        ends = committed(server, topic, topic, PARTITIONS)
    done = done_of(tmp_path)
    verdict = judge(tmp_path, only(published, done | left), {})
    gone = places_of(published) - left - done
    print(f"{protocol}, {len(gone)} of {len(places_of(published))} compacted before they were read: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert ends == {partition: max(offsets) + 1 for partition, offsets in published.items()}
    assert gone, "nothing was gone before it was read: a run without a fault proves nothing"
