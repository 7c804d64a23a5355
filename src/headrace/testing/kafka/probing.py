"""Whether a broker works, asked as a client would; and topics, for those who test."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import cast

from headrace.core.errors import BrokerError, BrokerTimeoutError, ConfigError

try:
    from confluent_kafka import KafkaError, KafkaException, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic
except ImportError as missing:
    raise ConfigError("to see whether a Kafka works: pip install 'headrace[kafka]'") from missing

__all__ = ["create_topic", "gives_producer_ids", "leader_of", "take_one"]

READY_TOPIC = "__headrace_ready"
"""Where the message goes that says a broker works; with one partition, it stays."""

_QUIET = {"log_level": "0"}
_INIT_PRODUCER_ID = 22
_STEP = 0.02
_ANSWER = 5.0


def gives_producer_ids(port: int) -> bool:
    """Whether a plain listener answers an InitProducerId without an error.

    The first one of a broker's life is refused while the broker asks the controller for numbers; the driver would wait
    a second before it asks again.
    """
    body = struct.pack(">hhih7shi", _INIT_PRODUCER_ID, 0, 1, 7, b"waiting", -1, 60_000)
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as link, link.makefile("rb") as answers:
            link.sendall(struct.pack(">i", len(body)) + body)
            answer = answers.read(4 + 4 + 4 + 2)  # size, correlation, throttle time, error
    except OSError:
        return False
    return answer[12:] == b"\0\0"


def take_one(bootstrap: str, *, cluster: str | None = None, node: int | None = None, timeout: float = 30.0) -> None:
    """Return once this node of this cluster has joined it (``None`` = any), and one idempotent message is accepted.

    ``BrokerTimeoutError`` if they are not in time, with what they said last.
    """
    deadline = time.monotonic() + timeout
    admin = AdminClient({"bootstrap.servers": bootstrap, **_QUIET})
    _patiently(deadline, f"{bootstrap} is not in its cluster", lambda: _is_in(admin, cluster, node))
    _patiently(deadline, f"{bootstrap} makes no topic", lambda: _has_topic(admin))
    _patiently(deadline, f"{bootstrap} takes no message", lambda: _takes_one(bootstrap, deadline))


def create_topic(
    bootstrap: str, name: str, partitions: int, config: Mapping[str, str] | None = None, *, timeout: float = 30.0
) -> None:
    """Return once the topic is there and each of its partitions has a leader. ``BrokerError`` if that cannot be."""
    deadline = time.monotonic() + timeout
    admin = AdminClient({"bootstrap.servers": bootstrap, **_QUIET})
    try:
        _create(admin, NewTopic(name, partitions, config=dict(config or {})))
    except KafkaException as error:
        raise BrokerError(f"{bootstrap} does not make the topic {name}: {error}") from error
    _patiently(deadline, f"{name} has partitions without a leader", lambda: len(_leaders(admin, name)) == partitions)


def leader_of(bootstrap: str, topic: str, partition: int, *, timeout: float = 30.0) -> int:
    """The number of the node that leads this partition; waits for an election that is going on."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **_QUIET})
    deadline = time.monotonic() + timeout
    _patiently(deadline, f"{topic} {partition} has no leader", lambda: partition in _leaders(admin, topic))
    return _leaders(admin, topic)[partition]


def _is_in(admin: AdminClient, cluster: str | None, node: int | None) -> bool:
    found = admin.list_topics(timeout=_ANSWER)
    return cluster in {None, found.cluster_id} and (node is None or node in found.brokers)


def _has_topic(admin: AdminClient) -> bool:
    if READY_TOPIC not in admin.list_topics(timeout=_ANSWER).topics:
        _create(admin, NewTopic(READY_TOPIC, 1))
    return len(_leaders(admin, READY_TOPIC)) == 1


def _leaders(admin: AdminClient, topic: str) -> dict[int, int]:
    """Partition -> the node that leads it, where there is one."""
    found = admin.list_topics(topic, timeout=_ANSWER).topics[topic].partitions
    return {number: partition.leader for number, partition in found.items() if partition.leader >= 0}


def _takes_one(bootstrap: str, deadline: float) -> bool:
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **_QUIET})
    producer.produce(READY_TOPIC, b"", on_delivery=lambda error, _: errors.append(error))
    producer.flush(max(_STEP, deadline - time.monotonic()))
    producer.purge()
    return errors == [None]


def _create(admin: AdminClient, topic: NewTopic) -> None:
    futures = cast("dict[str, Future[None]]", admin.create_topics([topic], operation_timeout=_ANSWER))
    futures[topic.topic].result()


def _patiently(deadline: float, what: str, look: Callable[[], bool]) -> None:
    """Return once `look` is true; a refusal by the broker is no answer yet."""
    refused: KafkaException | None = None
    while time.monotonic() < deadline:
        try:
            if look():
                return
        except KafkaException as error:
            refused = error
        time.sleep(_STEP)
    raise BrokerTimeoutError(f"{what}, in time: {refused}") from refused
