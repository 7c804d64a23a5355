"""What the examples on Kafka are told by the environment. Only they read it: headrace itself reads no variable."""

import os
from typing import NamedTuple


class Settings(NamedTuple):
    """HEADRACE_KAFKA_BROKERS, _TOPIC, _GROUP, _PARTITION and _TIMEOUT, or what stands here."""

    brokers: str
    topic: str
    group: str
    partition: int
    timeout: float


def read() -> Settings:
    """From the environment; ``HEADRACE_KAFKA_TIMEOUT`` is in seconds, with or without an ``s`` behind."""
    given = os.environ.get
    return Settings(
        brokers=given("HEADRACE_KAFKA_BROKERS", "127.0.0.1:9092"),
        topic=given("HEADRACE_KAFKA_TOPIC", "headrace-example"),
        group=given("HEADRACE_KAFKA_GROUP", "headrace-example-group"),
        partition=int(given("HEADRACE_KAFKA_PARTITION", "0")),
        timeout=float(given("HEADRACE_KAFKA_TIMEOUT", "30s").removesuffix("s")),
    )
