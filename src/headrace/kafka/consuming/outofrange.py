"""OutOfRange: what is done about a position that the broker has no record at any more. On the driver's thread."""

from __future__ import annotations

import logging
from typing import Any

from headrace.kafka import driver
from headrace.kafka.consuming.partition import Partition, Run
from headrace.kafka.consuming.places import ends, place
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.errors import KafkaError, OffsetOutOfRangeError
from headrace.kafka.reading import KafkaReadOptions, KafkaSubscribeOptions

__all__ = ["OutOfRange"]

_log = logging.getLogger("headrace.kafka")
_AGAIN = 0.2


class OutOfRange:
    """What is done about a position that the broker has no record at any more; and about all other errors."""

    def __init__(self, options: KafkaReadOptions) -> None:
        self._policy = options.on_out_of_range
        self._eager = (
            isinstance(options, KafkaSubscribeOptions)
            and options.group is not None
            and options.group_protocol == "eager"
        )

    def __call__(self, poller: Poller, consumer: Any, record: Any) -> None:
        """Go on elsewhere, aloud, or raise; what passes by itself is only logged."""
        error = driver.translated(record.error())
        if isinstance(error, OffsetOutOfRangeError):
            self._judge(poller, record, error)
        elif ends(error):
            raise error
        else:
            _log.warning("%s/%s: %s", record.topic(), record.partition(), error)

    def _judge(self, poller: Poller, record: Any, error: KafkaError) -> None:
        stay = poller.stays.get((record.topic(), record.partition()))
        if stay is None:
            return  # it came with the end of its stay
        if self._policy == "stop":
            raise error
        asked = record.offset()
        poller.post(lambda consumer: self._jump(poller, consumer, stay, asked))

    def _jump(self, poller: Poller, consumer: Any, stay: Partition, asked: int | None) -> None:
        ends_of_log = self._ends(poller, consumer, stay)
        poller.hear(consumer)  # to take it away now would answer a revoke that waits to be heard
        if ends_of_log is None or poller.stays.get(stay.key) is not stay:
            return
        low, high = ends_of_log
        target = low if self._policy == "earliest" else high
        if asked is not None and target < asked:  # the log was cut: what was read and is not finished comes again
            target = max(low, min(target, stay.unfinished_from()))
        _log.warning("%s: position %s is out of range, reading goes on at %s", stay.source, stay.position, target)
        behind_all_that_came = Run(stay, [], poller.now_ns(), end=target, jumped=True)
        poller.tell(poller.listener.arrived, [behind_all_that_came])
        self._read_on(consumer, stay, target)
        poller.pause_again(consumer)

    def _ends(self, poller: Poller, consumer: Any, stay: Partition) -> tuple[int, int] | None:
        """Where its log begins and ends; ``None``: it is to end soon, and nobody said."""
        while True:
            try:
                low, high = consumer.get_watermark_offsets(place(*stay.key), timeout=poller.asking)
            except driver.KafkaException as raised:
                failure = driver.translated(raised)
                if ends(failure) or not failure.retriable:
                    raise failure from raised
            else:
                return low, high
            if poller.leaving:
                return None
            poller.rest(_AGAIN)

    def _read_on(self, consumer: Any, stay: Partition, target: int) -> None:
        """Assign it anew: the driver has given its place up, and refuses a seek."""
        if self._eager:  # the driver takes a whole assignment only
            begun = {(each.topic, each.partition): each.offset for each in consumer.assignment()}
            read = {
                (each.topic, each.partition): each.offset for each in consumer.position([place(*key) for key in begun])
            }
            places = begun | {key: offset for key, offset in read.items() if offset >= 0}
            places[stay.key] = target
            consumer.assign([place(*key, offset) for key, offset in places.items()])
        else:
            there = place(*stay.key, target)
            consumer.incremental_unassign([there])
            consumer.incremental_assign([there])
