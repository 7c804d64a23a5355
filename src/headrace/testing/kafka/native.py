"""librdkafka by ctypes: the functions of its mock cluster, with the types of ``rdkafka.h`` and ``rdkafka_mock.h``."""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import POINTER, c_char_p, c_int, c_int16, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from headrace.core.errors import BrokerError, ConfigError, UnsupportedError

__all__ = ["call", "check", "find_librdkafka"]

_PLACES = ("../confluent_kafka.libs/librdkafka*", ".dylibs/librdkafka*.dylib")  # of the wheel for Linux, for macOS
_CLUSTER = c_void_p

# The cluster functions begin with rd_kafka_mock_ and take the cluster first.
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "rd_kafka_conf_new": (c_void_p, ()),
    "rd_kafka_conf_set": (c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
    "rd_kafka_new": (c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
    "rd_kafka_destroy": (None, (c_void_p,)),
    "rd_kafka_err2str": (c_char_p, (c_int,)),
    "rd_kafka_mock_cluster_new": (c_void_p, (c_void_p, c_int)),
    "rd_kafka_mock_cluster_destroy": (None, (_CLUSTER,)),
    "rd_kafka_mock_cluster_bootstraps": (c_char_p, (_CLUSTER,)),
    "rd_kafka_mock_topic_create": (c_int, (_CLUSTER, c_char_p, c_int, c_int)),
    "rd_kafka_mock_topic_delete": (c_int, (_CLUSTER, c_char_p)),
    "rd_kafka_mock_topic_set_error": (None, (_CLUSTER, c_char_p, c_int)),
    "rd_kafka_mock_partition_delete_records": (c_int, (_CLUSTER, c_char_p, c_int32, c_int64)),
    "rd_kafka_mock_partition_set_leader": (c_int, (_CLUSTER, c_char_p, c_int32, c_int32)),
    "rd_kafka_mock_coordinator_set": (c_int, (_CLUSTER, c_char_p, c_char_p, c_int32)),
    "rd_kafka_mock_push_request_errors_array": (None, (_CLUSTER, c_int16, c_size_t, POINTER(c_int))),
    # and after the count, for each: error (int), milliseconds (int)
    "rd_kafka_mock_broker_push_request_error_rtts": (c_int, (_CLUSTER, c_int32, c_int16, c_size_t)),
    "rd_kafka_mock_clear_request_errors": (None, (_CLUSTER, c_int16)),
    "rd_kafka_mock_broker_set_down": (c_int, (_CLUSTER, c_int32)),
    "rd_kafka_mock_broker_set_up": (c_int, (_CLUSTER, c_int32)),
    "rd_kafka_mock_broker_set_rtt": (c_int, (_CLUSTER, c_int32, c_int)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (_CLUSTER, c_int32)),
    "rd_kafka_mock_set_group_consumer_session_timeout_ms": (None, (_CLUSTER, c_int)),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, (_CLUSTER, c_int)),
    "rd_kafka_mock_start_request_tracking": (None, (_CLUSTER,)),
    "rd_kafka_mock_stop_request_tracking": (None, (_CLUSTER,)),
    "rd_kafka_mock_clear_requests": (None, (_CLUSTER,)),
    "rd_kafka_mock_get_requests": (POINTER(c_void_p), (_CLUSTER, POINTER(c_size_t))),
    "rd_kafka_mock_request_id": (c_int32, (c_void_p,)),
    "rd_kafka_mock_request_api_key": (c_int16, (c_void_p,)),
    "rd_kafka_mock_request_timestamp": (c_int64, (c_void_p,)),
    "rd_kafka_mock_request_destroy_array": (None, (POINTER(c_void_p), c_size_t)),
}


def find_librdkafka() -> Path:
    """The library in the driver's wheel. ``ConfigError`` where the driver is missing, or was built without a wheel."""
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or found.origin is None:
        raise ConfigError("Kafka's mock cluster is part of the driver: pip install 'headrace[kafka]'")
    package = Path(found.origin).parent
    for place in _PLACES:
        folder, _, pattern = place.rpartition("/")
        for library in (package / folder).glob(pattern):
            return library.resolve()
    raise ConfigError(f"no librdkafka beside {package}: confluent-kafka must come from its wheel")


def call(name: str, *arguments: Any) -> Any:
    """Call the function of this name; ``UnsupportedError`` where the driver's librdkafka is too old to have it."""
    return _function(name)(*arguments)


def check(name: str, *arguments: Any) -> None:
    """`call` one that returns an error code; ``BrokerError`` unless it is 0."""
    if code := call(name, *arguments):
        raise BrokerError(f"{name}{arguments[1:]}: {call('rd_kafka_err2str', code).decode()}")


@cache
def _function(name: str) -> Any:
    function = getattr(_library(), name, None)
    if function is None:
        raise UnsupportedError(f"this confluent-kafka brings a librdkafka without {name}: take a newer one")
    function.restype, function.argtypes = _SIGNATURES[name]
    return function


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(find_librdkafka()))
