"""KafkaMock: librdkafka's own mock cluster, for the errors that no real broker makes when a test wants them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from headrace.core.errors import BrokerError, ConfigError, UsageError
from headrace.testing.kafka.native import call, check

__all__ = ["DISCONNECT", "Api", "KafkaMock", "MockRequest"]

DISCONNECT = -195
"""As an error of `KafkaMock.push_errors`: the broker hangs up in place of an answer (``_TRANSPORT``)."""

_EVERY = -1  # broker
_NONE = -1  # leader
_PRODUCER = 0
_TEXT = 512


class Api(IntEnum):
    """The requests that the mock cluster answers, by their number in Kafka's protocol."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    CONSUMER_GROUP_HEARTBEAT = 68
    GET_TELEMETRY_SUBSCRIPTIONS = 71
    PUSH_TELEMETRY = 72


@dataclass(frozen=True)
class MockRequest:
    """One request that a broker has received."""

    api: int
    """Its number: an `Api`, as a rule."""
    broker: int
    at: float
    """When, in seconds of ``time.monotonic()`` (Linux)."""


class KafkaMock:
    """So many brokers in this process, numbered from 1, while the context is open; starts in milliseconds.

    Produces, consumes, balances groups of both protocols and keeps their commits; knows no admin requests, no offsets
    by time, and stores no transaction's outcome. A topic is made by `create_topic`, or with four partitions when a
    client asks for it. When members join or leave, a group of the classic protocol stands still for their session
    timeout less a second (all of it up to a second): give them a short one. Broker ``None`` = all of them. Error codes
    are Kafka's and the driver's: ``KafkaError.code()``. A method raises ``BrokerError`` for what librdkafka refuses (a
    broker that there is not), ``UsageError`` outside of the context.
    """

    def __init__(self, brokers: int = 3) -> None:
        if brokers < 1:
            raise ConfigError(f"brokers {brokers}: at least 1")
        self.brokers = range(1, brokers + 1)
        self._client: int | None = None
        self._cluster: int | None = None

    def __enter__(self) -> Self:
        conf = call("rd_kafka_conf_new")
        wrong = ctypes.create_string_buffer(_TEXT)
        call("rd_kafka_conf_set", conf, b"log_level", b"0", wrong, _TEXT)  # it would miss bootstrap.servers aloud
        self._client = call("rd_kafka_new", _PRODUCER, conf, wrong, _TEXT)
        if not self._client:
            raise BrokerError(f"librdkafka does not start: {wrong.value.decode()}")
        self._cluster = call("rd_kafka_mock_cluster_new", self._client, len(self.brokers))
        if not self._cluster:
            self.__exit__()
            raise BrokerError("librdkafka starts no mock cluster")
        self.set_rebalance_delay(0)
        return self

    def __exit__(self, *_: object) -> None:
        cluster, client = self._cluster, self._client
        self._cluster = self._client = None
        if cluster:
            call("rd_kafka_mock_cluster_destroy", cluster)
        if client:
            call("rd_kafka_destroy", client)

    @property
    def bootstrap(self) -> str:
        """``host:port`` of all brokers, with commas between."""
        found: bytes = self._ask("cluster_bootstraps")
        return found.decode()

    # --- topics ---

    def create_topic(self, name: str, partitions: int = 1, *, replicas: int | None = None) -> None:
        """Make it, on `replicas` of the brokers (all by default)."""
        self._do("topic_create", name.encode(), partitions, replicas or len(self.brokers))

    def delete_topic(self, name: str) -> None:
        """Requests for it are answered with UNKNOWN_TOPIC_OR_PART then."""
        self._do("topic_delete", name.encode())

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Have the partition begin at this offset; what was fetched from before it is out of range."""
        self._do("partition_delete_records", topic.encode(), partition, before)

    def set_topic_error(self, topic: str, error: int) -> None:
        """Answer metadata requests for the topic so, until told 0."""
        self._ask("topic_set_error", topic.encode(), error)

    # --- errors ---

    def push_errors(self, api: int, *errors: int, broker: int | None = None, delay: float = 0.0) -> None:
        """Answer the next requests of this kind with these error codes, one each; 0 is a good answer.

        `DISCONNECT` hangs up. Those of one broker come before those of all. With a broker, `delay` is how many seconds
        each of these answers takes.
        """
        if broker is None:
            if delay:
                raise ConfigError(f"delay {delay}: needs a broker")
            self._ask("push_request_errors_array", api, len(errors), (ctypes.c_int * len(errors))(*errors))
            return
        pairs = (ctypes.c_int(value) for error in errors for value in (error, _milliseconds(delay)))
        self._do("broker_push_request_error_rtts", broker, api, len(errors), *pairs)

    def clear_errors(self, api: int) -> None:
        """Forget what was pushed for this kind of request without a broker."""
        self._ask("clear_request_errors", api)

    # --- brokers ---

    def down(self, broker: int | None = None) -> None:
        """Cut its links and take no new ones; it stays the leader of what it leads."""
        self._do("broker_set_down", _EVERY if broker is None else broker)

    def up(self, broker: int | None = None) -> None:
        """Take links again."""
        self._do("broker_set_up", _EVERY if broker is None else broker)

    def slow(self, seconds: float, broker: int | None = None) -> None:
        """Have every answer take so long, until told 0."""
        self._do("broker_set_rtt", _EVERY if broker is None else broker, _milliseconds(seconds))

    def move_leader(self, topic: str, partition: int, broker: int | None) -> None:
        """Make this broker the partition's leader; ``None`` leaves it without one."""
        self._do("partition_set_leader", topic.encode(), partition, _NONE if broker is None else broker)

    # --- groups ---

    def move_coordinator(self, group: str, broker: int) -> None:
        """Make this broker the group's coordinator, who knows of the group what the old one did."""
        self._do("coordinator_set", b"group", group.encode(), broker)

    def move_transaction_coordinator(self, transactional_id: str, broker: int) -> None:
        """Make this broker the coordinator of these transactions."""
        self._do("coordinator_set", b"transaction", transactional_id.encode(), broker)

    def set_rebalance_delay(self, seconds: float) -> None:
        """How long a group waits for more members before it is balanced first (classic protocol); 0 unless told."""
        self._ask("group_initial_rebalance_delay_ms", _milliseconds(seconds))

    def set_consumer_group_times(self, *, session: float, heartbeat: float) -> None:
        """In seconds, what members of the newer protocol (KIP-848) are told."""
        self._ask("set_group_consumer_session_timeout_ms", _milliseconds(session))
        self._ask("set_group_consumer_heartbeat_interval_ms", _milliseconds(heartbeat))

    # --- requests ---

    def track(self) -> None:
        """Take note of every request from now on."""
        self._ask("start_request_tracking")

    def untrack(self) -> None:
        """Take no more notes; those taken stay."""
        self._ask("stop_request_tracking")

    def requests(self, *apis: int) -> list[MockRequest]:
        """Those noted so far, of these kinds (all by default), in the order in which they came."""
        count = ctypes.c_size_t()
        noted = self._ask("get_requests", ctypes.byref(count))
        if not count.value:
            return []
        try:
            found = [_request(noted[number]) for number in range(count.value)]
        finally:
            call("rd_kafka_mock_request_destroy_array", noted, count.value)
        return [request for request in found if not apis or request.api in apis]

    def forget(self) -> None:
        """Throw the notes away; `track` goes on."""
        self._ask("clear_requests")

    def _ask(self, name: str, *arguments: Any) -> Any:
        return call(f"rd_kafka_mock_{name}", self._open(), *arguments)

    def _do(self, name: str, *arguments: Any) -> None:
        check(f"rd_kafka_mock_{name}", self._open(), *arguments)

    def _open(self) -> int:
        if self._cluster is None:
            raise UsageError("a KafkaMock lives inside `with KafkaMock() as mock:`")
        return self._cluster


def _request(noted: int) -> MockRequest:
    number: int = call("rd_kafka_mock_request_api_key", noted)
    broker: int = call("rd_kafka_mock_request_id", noted)
    microseconds: int = call("rd_kafka_mock_request_timestamp", noted)
    return MockRequest(Api(number) if number in set(Api) else number, broker, microseconds / 1_000_000)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1_000)
