"""Handing: from a driver's record to a delivery; and when a partition has so much unfinished that it must wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from operator import length_hint, methodcaller
from typing import Any

from headrace.core.delivery import Delivery, DeliveryOwner
from headrace.core.errors import HandlerError
from headrace.core.headers import NO_HEADERS
from headrace.core.message import Message
from headrace.kafka.consuming.delivery import KafkaDelivery
from headrace.kafka.consuming.partition import Epoch, Held, Partition, Run
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.reading import KafkaReadOptions
from headrace.kafka.wire import decode

__all__ = ["Handing"]

_HEADERS = methodcaller("headers")


class Handing:
    """The hot path of reading: one tracker call a run, one message, one delivery a record."""

    def __init__(self, options: KafkaReadOptions, *, id_header: str) -> None:
        self._id_header = id_header
        self._extract = options.key_extractor
        self._order_keyless = options.order_keyless
        self._plain = options.key_extractor is None and not options.order_keyless
        self._most = options.max_span
        self._most_bytes = options.max_span_bytes

    def hand_out(
        self, owner: DeliveryOwner, poller: Poller, runs: deque[Run], limit: int, found: list[Delivery]
    ) -> None:
        """Append up to `limit` deliveries. What an extractor raises ends the subscription, behind those before it."""
        while runs and limit > 0:
            run = runs[0]
            records = run.records[run.at : run.at + limit]
            if records:
                limit -= len(records)
                run.at += len(records)
                poller.pulled += len(records)
                self._hand_out_run(owner, run, records, found)
                self._look_at_span(run.partition, poller)
            if run.at >= len(run.records):
                runs.popleft()
                if run.end is not None and run.partition.live:
                    run.partition.position = max(run.partition.position, run.end)
        poller.wake()

    def relieve(self, partition: Partition, poller: Poller) -> None:
        """A paused partition goes on at half."""
        few = partition.epoch.tracker.tracked <= self._most // 2
        if few and partition.held_bytes <= self._most_bytes // 2:
            partition.paused = False
            poller.post(lambda consumer: poller.resume(consumer, partition))

    def _look_at_span(self, partition: Partition, poller: Poller) -> None:
        much = partition.epoch.tracker.tracked >= self._most or partition.held_bytes >= self._most_bytes
        if much and not partition.paused:
            partition.paused = True
            poller.post(lambda consumer: poller.pause(consumer, partition))

    def _hand_out_run(self, owner: DeliveryOwner, run: Run, records: list[Any], found: list[Delivery]) -> None:
        partition, received_ns, id_header = run.partition, run.received_ns, self._id_header
        offsets = [record.offset() for record in records]
        epoch = self._begin(run, records, offsets)
        if partition.before:
            records, offsets = _without(partition, records, offsets)
        topic, source, total = partition.topic, partition.source, 0
        for record, offset in zip(_readable(records), offsets, strict=True):
            message, stamp = decode(record, topic, source, offset, id_header)
            headers, key_bytes = message.headers, message.key
            size = len(message.body) + (len(key_bytes) if key_bytes else 0)
            if headers is not NO_HEADERS:
                size += headers.size
            total += size
            held = Held(epoch, offset, message, size, stamp, received_ns)
            key = key_bytes if self._plain else self._key_of(message, source)
            found.append(KafkaDelivery(message, 1, key, owner, held))
        epoch.out += len(records)
        partition.held_bytes += total

    def _begin(self, run: Run, records: list[Any], offsets: list[int]) -> Epoch:
        """Records of one run that were read from several leader epochs, or go back, are begun piece by piece."""
        partition, received_ns = run.partition, run.received_ns
        leader = records[0].leader_epoch()
        if records[-1].leader_epoch() == leader:
            return partition.begin(offsets, _number(leader), received_ns)
        epoch = partition.epoch
        for record, offset in zip(records, offsets, strict=True):
            epoch = partition.begin([offset], _number(record.leader_epoch()), received_ns)
        return epoch

    def _key_of(self, message: Message, source: str) -> Hashable | None:
        key = message.key
        if self._extract is not None:
            try:
                given = self._extract(message)
            except Exception as error:
                raise HandlerError(f"key_extractor failed on {message.topic} {message.id}: {error}") from error
            if given:
                key = given.encode() if isinstance(given, str) else given
        return source if key is None and self._order_keyless else key


def _readable(records: list[Any]) -> list[Any]:
    """These records, those whose headers the driver cannot read replaced by one that says so each time.

    The driver returns a broken list and an error at once. Only a caller in C is sure to look for the error: the
    interpreter leaves that out where it has seen the call often, and whoever touches the list dies of it.
    """
    left, found = iter(records), records
    while True:
        try:
            deque(map(_HEADERS, left), maxlen=0)
        except SystemError:
            at = len(records) - length_hint(left) - 1
            found = [*found[:at], _Unreadable(records[at]), *found[at + 1 :]]
        else:
            return found


class _Unreadable:
    """A record with headers that cannot be read."""

    def __init__(self, record: Any) -> None:
        self._record = record

    def headers(self) -> Any:
        raise SystemError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)


def _number(leader: int | None) -> int:
    return -1 if leader is None else leader


def _without(partition: Partition, records: list[Any], offsets: list[int]) -> tuple[list[Any], list[int]]:
    """What another member has finished already is finished here too, and not handed out."""
    before, tracker = partition.before, partition.epoch.tracker
    done = before.intersection(offsets)
    for offset in done:
        tracker.finish(offset)
    before -= done
    if before and max(before) < offsets[-1]:
        before.clear()  # compaction has taken them
    kept = [(record, offset) for record, offset in zip(records, offsets, strict=True) if offset not in done]
    return [record for record, _ in kept], [offset for _, offset in kept]
