"""What was published, partition -> offset -> key: for the judge, who asks what has become of it."""

from tests.faults.kafka.troupe import publish


async def publish_more(published, address, topic, count):
    """So many more, added to what was published."""
    for partition, offsets in (await publish(address, topic, count)).items():
        published[partition] = published.get(partition, {}) | offsets


def places_of(published):
    """(partition, offset) of all."""
    return {(partition, offset) for partition, offsets in published.items() for offset in offsets}


def only(published, places):
    """What was published, of these places."""
    return {
        partition: {offset: key for offset, key in offsets.items() if (partition, offset) in places}
        for partition, offsets in published.items()
    }


def last_of_keys(published):
    """(partition, offset) of the newest of each key."""
    newest = {(partition, key): offset for partition, offsets in published.items() for offset, key in offsets.items()}
    return {(partition, offset) for (partition, _), offset in newest.items()}
