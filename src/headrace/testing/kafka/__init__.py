"""Kafka for tests: real brokers, alone or three, that die and come back; mock brokers that fail as they are told.

Nothing here needs a running event loop: plain classes, open while their ``with`` block is. Brokers need Java 17 and the
jars that ``python -m headrace.testing.kafka`` fetches; mock brokers need the driver alone.
"""

from headrace.testing.kafka.cluster import KafkaCluster
from headrace.testing.kafka.jars import find_java, find_libs, install
from headrace.testing.kafka.mock import DISCONNECT, Api, KafkaMock, MockRequest
from headrace.testing.kafka.server import QUICK, KafkaServer
from headrace.testing.kafka.settings import Sasl, Seat, Tls

__all__ = [
    "DISCONNECT",
    "QUICK",
    "Api",
    "KafkaCluster",
    "KafkaMock",
    "KafkaServer",
    "MockRequest",
    "Sasl",
    "Seat",
    "Tls",
    "find_java",
    "find_libs",
    "install",
]
