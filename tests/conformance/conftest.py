"""The server of Kafka, as users of `headrace.testing` get it."""

from headrace.testing.plugin import kafka_installed, kafka_server

__all__ = ["kafka_installed", "kafka_server"]
