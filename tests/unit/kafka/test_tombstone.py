"""A record with a null value goes through the codecs of bodies as it is, both ways."""

import asyncio

import pytest

from headrace.core.delivery import Delivery
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow import Topic
from headrace.flow.middleware import Base64Decode, Base64Encode, Compress, Decompress
from headrace.kafka.wire import Tombstone, encode

CODED = Headers({"Content-Encoding": "gzip", "Content-Transfer-Encoding": "base64"})


@pytest.mark.parametrize("headers", [Headers(), CODED], ids=["bare", "coded"])
@pytest.mark.parametrize("codec", [Base64Encode(), Base64Decode(), Compress(min_size=0), Decompress()])
def test_codecs_do_not_touch_it(codec, headers):
    gone = Tombstone(topic="orders", key=b"k", headers=headers)
    assert codec.change(gone) is gone


def test_an_empty_body_is_none():
    """It is encoded as any other."""
    empty = Message(topic="orders", body=b"", key=b"k")
    assert "Content-Transfer-Encoding" in Base64Encode().change(empty).headers
    assert (empty.has_body, Tombstone(topic="orders").has_body) == (True, False)


def test_it_is_still_one_behind_the_middleware():
    async def main():
        sent, seen = [], []

        async def publish(message):
            sent.append(message)

        topic = Topic(publish, "orders", middleware=[Compress(min_size=0), Base64Encode()])
        await topic.publish(Tombstone(topic="orders", key=b"k", headers=Headers({"A": "1"})))
        assert encode(sent[0], "Headrace-Id")[1] is None
        assert sent[0].headers == Headers({"A": "1"})

        async def handler(delivery):
            seen.append(delivery.message)

        coded = Tombstone(topic="orders", key=b"k", headers=CODED)
        await Decompress()(Delivery(coded, 1, None, None), handler)
        await Base64Decode()(Delivery(coded, 1, None, None), handler)
        assert seen == [coded, coded]

    asyncio.run(main())
