"""Handing: from a driver's record to a delivery; and when a partition has so much unfinished that it must wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any

from headrace.core.delivery import Delivery, DeliveryOwner
from headrace.core.errors import HandlerError, UsageError
from headrace.core.headers import NO_HEADERS
from headrace.core.message import Message
from headrace.kafka.consuming.delivery import KafkaDelivery
from headrace.kafka.consuming.partition import Epoch, Held, Partition, Run
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.reading import KafkaReadOptions
from headrace.kafka.wire import decode

__all__ = ["Handing"]


class Handing:
    """The hot path of reading: one tracker call a run, one message, one delivery a record."""

    def __init__(self, options: KafkaReadOptions, *, id_header: str) -> None:
        self._id_header = id_header
        self._extract = options.key_extractor
        self._order_keyless = options.order_keyless
        self._plain = options.key_extractor is None and not options.order_keyless
        self._most = options.max_span
        self._most_bytes = options.max_span_bytes
        self.went_back = False
        """Whether somewhere an epoch has ended; whoever looks takes it back."""

    def hand_out(
        self, owner: DeliveryOwner, poller: Poller, runs: deque[Run], limit: int, found: list[Delivery]
    ) -> None:
        """Append up to `limit` deliveries. ``HandlerError``: an extractor failed on the record behind them.

        Fewer only where no run is left: what another has finished takes no place, and nobody rings for what is here.
        """
        most = len(found) + limit
        while runs and len(found) < most:
            run = runs[0]
            records = run.records[run.at : run.at + most - len(found)]
            if records:
                run.at += len(records)
                poller.pulled += len(records)
                self._hand_out_run(owner, run, records, found)
                self._look_at_span(run.partition, poller)
            if run.at >= len(run.records):
                runs.popleft()
                if run.end is not None and run.partition.live:
                    self._go_on(run, run.end)
                    self._look_at_span(run.partition, poller)
        poller.wake()

    def _go_on(self, run: Run, end: int) -> None:
        partition = run.partition
        if run.jumped or 0 <= partition.position < end:
            before = partition.epoch
            partition.goes_on(end, run.received_ns)
            self.went_back = self.went_back or partition.epoch is not before
        else:  # not known before, or not behind what was read
            partition.position = max(partition.position, end)

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
        elif partition.paused:
            self.relieve(partition, poller)  # a new epoch holds nothing

    def _hand_out_run(self, owner: DeliveryOwner, run: Run, records: list[Any], found: list[Delivery]) -> None:
        offsets = [record.offset() for record in records]
        before = run.partition.epoch
        for epoch, start, stop in _begin(run, records, offsets):
            if stop - start < len(records):
                self._hand_out_piece(owner, epoch, records[start:stop], offsets[start:stop], found)
            else:
                self._hand_out_piece(owner, epoch, records, offsets, found)
        if run.partition.epoch is not before:
            self.went_back = True

    def _hand_out_piece(
        self,
        owner: DeliveryOwner,
        epoch: Epoch,
        records: list[Any],
        offsets: list[int],
        found: list[Delivery],
    ) -> None:
        partition, id_header, (_, received_ns) = epoch.partition, self._id_header, epoch.arrivals[-1]
        if partition.before:
            records, offsets = _without(partition, records, offsets)
        topic, source, total, already = partition.topic, partition.source, 0, len(found)
        try:
            for record, offset in zip(records, offsets, strict=True):
                message, stamp = decode(record, topic, source, offset, id_header)
                headers, key_bytes = message.headers, message.key
                key = key_bytes if self._plain else self._key_of(message, source)
                size = len(message.body) + (len(key_bytes) if key_bytes else 0)
                if headers is not NO_HEADERS:
                    size += headers.size
                total += size
                found.append(
                    KafkaDelivery(message, 1, key, owner, Held(epoch, offset, message, size, stamp, received_ns))
                )
        finally:  # an extractor may raise midway
            epoch.out += len(found) - already
            partition.held_bytes += total

    def _key_of(self, message: Message, source: str) -> Hashable | None:
        key = message.key
        if self._extract is not None:
            try:
                key = _bytes_of(self._extract(message)) or key
            except Exception as error:
                raise HandlerError(f"key_extractor failed on {message.topic} {message.id}: {error}") from error
        return source if key is None and self._order_keyless else key


def _bytes_of(given: object) -> bytes | None:
    if isinstance(given, str):
        return given.encode()
    if given is None or isinstance(given, bytes):
        return given
    raise TypeError(f"a key is bytes, str or None, got {type(given).__name__}")


def _begin(run: Run, records: list[Any], offsets: list[int]) -> Iterator[tuple[Epoch, int, int]]:
    """Each epoch, and which of the records are begun in it: all, but where leaders change or the offsets go back."""
    partition, received_ns, count = run.partition, run.received_ns, len(records)
    leader = records[0].leader_epoch()
    if records[-1].leader_epoch() == leader:
        try:
            epoch = partition.begin(offsets, _number(leader), received_ns)
        except UsageError:
            pass  # they do not ascend
        else:
            yield epoch, 0, count
            return
    start = 0
    for stop in range(1, count + 1):
        leader = records[start].leader_epoch()
        if stop == count or offsets[stop] <= offsets[stop - 1] or records[stop].leader_epoch() != leader:
            yield partition.begin(offsets[start:stop], _number(leader), received_ns), start, stop
            start = stop


def _number(leader: int | None) -> int:
    return -1 if leader is None else leader


def _without(partition: Partition, records: list[Any], offsets: list[int]) -> tuple[list[Any], list[int]]:
    """What another member has finished already is finished here too, and not handed out."""
    before, tracker = partition.before, partition.epoch.tracker
    done = before.intersection(offsets)
    if done and _number(records[-1].leader_epoch()) > partition.before_leader:
        before.clear()  # not the records that were meant: the log was cut meanwhile
        return records, offsets
    for offset in done:
        tracker.finish(offset)
    before -= done
    if before and max(before) < offsets[-1]:
        before.clear()  # compaction has taken them
    kept = [(record, offset) for record, offset in zip(records, offsets, strict=True) if offset not in done]
    return [record for record, _ in kept], [offset for _, offset in kept]
