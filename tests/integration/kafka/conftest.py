"""The Kafkas, as users of `headrace.testing` get them."""

from headrace.testing.plugin import kafka_cluster, kafka_installed, kafka_mock, kafka_server

__all__ = ["kafka_cluster", "kafka_installed", "kafka_mock", "kafka_server"]
