"""A broker over the mock cluster that makes no topics."""

from headrace.kafka.broker import KafkaBroker
from headrace.kafka.options import KafkaOptions


def broker_on(mock, **options):
    return KafkaBroker(mock.bootstrap, options=KafkaOptions(**options), create=False)
