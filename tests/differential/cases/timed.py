"""Directed programs on what time does. `later` is never early, and as late as the machine is.

They run beside each other, so each says itself where it looks at infos.
"""

from datetime import timedelta

from headrace.streams.config import ReplayPolicy
from tests.differential.cases.words import ack, change, made, make, nak, new, pull, put, term, touch
from tests.differential.side import do

STREAM, CONSUMER, MARK = do.info("S"), do.consumer_info("S", "c"), do.mark()


def later(limit, least):
    return do.later("S", "c", limit, least)


# fmt: off
CASES = {
    "nak delay": [new(), *put("abc"), make(), pull(2), MARK, nak(0, 0.6), pull(), later(1, 0.6), CONSUMER],
    "nak delays": [new(), *put("abc"), make(), pull(), MARK, nak(0, 1.2), nak(1, 0.4), nak(2, 0.8), later(1, 0.4),
        later(1, 0.8), later(1, 1.2), CONSUMER],
    "nak delay with backoff": [new(), *put("a"), make(backoff=[0.6, 1.2], max_deliver=5), pull(), MARK, nak(0, 0.4),
        later(1, 0.4), later(1, 1.6)],
    "nak in backoff": [new(), *put("a"), make(backoff=[0.6, 1.2], max_deliver=5), pull(), nak(0), MARK, later(1, 0.0),
        later(1, 1.2)],
    "backoff": [new(), *put("a"), make(backoff=[0.4, 0.8]), MARK, pull(), later(1, 0.4), later(1, 1.2), later(1, 2.0),
        CONSUMER],
    "ack wait": [new(), *put("abc"), make(ack_wait=0.6), MARK, pull(), ack(1), later(2, 0.6), *put("d"), ack(3), ack(4),
        pull(), CONSUMER],
    "ack all": [new(), *put("abcdef"), make(ack_policy="all", ack_wait=0.6), MARK, pull(4), later(4, 0.6), ack(6),
        CONSUMER],
    "in progress": [new(), *put("a"), make(ack_wait=1.0), pull(), do.sleep(0.6), MARK, touch(0), later(1, 1.0),
        CONSUMER],
    "stale ack": [new(), *put("ab"), make(ack_wait=0.6), MARK, pull(), later(2, 0.6), ack(0), ack(3), CONSUMER],
    "term": [new(), *put("ab"), make(ack_wait=0.6), MARK, pull(), term(0), later(1, 0.6), ack(2), CONSUMER],
    "max_deliver": [new(), *put("ab"), make(max_deliver=2, ack_wait=0.6), MARK, pull(), later(2, 0.6),
        pull(1, wait=1.8), CONSUMER],
    "max_deliver 1": [new(), *put("ab"), make(max_deliver=1, ack_wait=0.6), MARK, pull(), pull(1, wait=1.8), CONSUMER,
        ack(0), ack(1), *put("c"), later(1, 0.0), ack(2)],
    "exhausted in a workqueue": [new(retention="workqueue"), *put("ab"), make(max_deliver=1, ack_wait=0.6), pull(),
        pull(1, wait=1.8), CONSUMER, ack(0), ack(1), STREAM],
    "exhausted makes room": [new(), *put("abcd"), make(max_deliver=1, ack_wait=0.6, max_ack_pending=2), MARK, pull(2),
        later(2, 0.6)],
    "due before new": [new(), *put("abcdef"), make(ack_wait=0.6, max_ack_pending=3), MARK, pull(3), later(3, 0.6),
        CONSUMER],
    "raised": [new(), *put("ab"), make(max_deliver=1, ack_wait=0.6), MARK, pull(), pull(1, wait=1.8),
        make("update", max_deliver=3, ack_wait=0.6), *put("c"), later(1, 0.0)],
    "inactive": [new(), MARK, made(name="c", inactive_threshold=1.0), do.until_gone("S", "c", 1.0), pull()],
    "inactive but read": [new(), made(name="c", inactive_threshold=1.2), MARK, pull(1, wait=1.8),
        do.until_gone("S", "c", 1.8)],
    "max_age": [new(max_age=1.0, duplicate_window=1.0), MARK, *put("aba"), do.until_left("S", 0, 1.0), STREAM,
        *put("a"), do.last("S", "S.a")],
    "max_age under a consumer": [new(max_age=1.0, duplicate_window=1.0), make(), MARK, *put("ab"), pull(1),
        do.until_left("S", 0, 1.0), pull(), nak(0), pull(), *put("c"), pull(), CONSUMER],
    "max_age changed": [new(max_age=60.0, duplicate_window=1.0), MARK, *put("ab"),
        change(max_age=1.2, duplicate_window=1.0), do.until_left("S", 0, 1.2), change(duplicate_window=1.0), STREAM],
    "ttl": [new(allow_message_ttl=True), MARK, do.publish("S.a", ttl=1.0), do.until_left("S", 0, 1.0),
        do.publish("S.b", ttl=timedelta.max), do.publish("S.c"), STREAM],
    "ttl and max_age": [new(allow_message_ttl=True, max_age=1.0, duplicate_window=1.0), MARK,
        do.publish("S.a", ttl=timedelta.max), *put("b"), do.until_left("S", 1, 1.0), do.get("S", 1), do.get("S", 2),
        STREAM],
    "duplicate window": [new(duplicate_window=0.6), do.publish("S.a", msg_id="1"), do.publish("S.b", msg_id="1"),
        do.sleep(1.4), do.publish("S.b", msg_id="1"), do.publish("S.b", msg_id="1"),
        do.publish("S.b", expect={"last_id": "1"})],
    "paused for a while": [new(), *put("ab"), make(), pull(1), MARK, do.pause("S", "c", 1.2), pull(), later(1, 1.2),
        CONSUMER],
    "replay": [new(), *put("a"), do.sleep(0.8), *put("b"), make(replay_policy=ReplayPolicy.ORIGINAL), MARK,
        later(1, 0.0), later(1, 0.8)],
}
