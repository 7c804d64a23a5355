"""Kafka for tests: real brokers, alone or three, that die and come back."""

from headrace.testing.kafka.server import KafkaServer
from headrace.testing.kafka.settings import Sasl, Seat, Tls

__all__ = ["KafkaServer", "Sasl", "Seat", "Tls"]
