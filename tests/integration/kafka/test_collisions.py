"""Reading a topic that may not be, because the server holds its name and another's for the same."""

import pytest

from headrace.core.errors import ConfigError
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaPartitionOptions, KafkaSubscribeOptions, UnknownTopicError
from tests.integration.kafka.raw import new_name, run

pytestmark = pytest.mark.servers

WAYS = {
    "group": KafkaSubscribeOptions(group="readers"),
    "alone": KafkaSubscribeOptions(),
    "partition": KafkaPartitionOptions(partition=0),
}


def says_both(error, *names):
    assert "collides" in str(error)
    assert all(name in str(error) for name in names)


@pytest.mark.parametrize("way", WAYS)
def test_subscribe_refuses_a_name_that_collides(way, kafka_server):
    there, missing = f"{(name := new_name('orders'))}.eu", f"{name}_eu"

    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            await broker.publish(Message(topic=there, body=b"x"))
            with pytest.raises(ConfigError) as raised:
                async with broker.subscribe(missing, WAYS[way]):
                    pass
            says_both(raised.value, there, missing)
            with pytest.raises(ConfigError) as raised:
                await Worker(broker, missing, lambda delivery: None, subscribe=WAYS[way]).run()
            says_both(raised.value, there, missing)
            assert missing not in (await broker.topics.metadata()).topics
            with pytest.raises(UnknownTopicError):  # nothing is made, so nothing collides
                async with (
                    KafkaBroker(kafka_server.bootstrap, create=False) as other,
                    other.subscribe(missing, WAYS[way]),
                ):
                    pass

    run(story())


def test_the_good_one_of_two_is_not_read_either(kafka_server):
    there, missing = f"{(name := new_name('orders'))}.eu", f"{name}_eu"

    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            await broker.declare(there)
            with pytest.raises(ConfigError) as raised:
                async with broker.subscribe([there, missing], WAYS["group"]):
                    pass
            says_both(raised.value, there, missing)

    run(story())
