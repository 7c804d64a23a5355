"""Commits: what of the finished work the group's coordinator is told, and what it answers. On the driver's thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from headrace.core.errors import BrokerTimeoutError
from headrace.kafka import driver
from headrace.kafka.codes import Code
from headrace.kafka.consuming.partition import Epoch, Partition
from headrace.kafka.consuming.places import ends, place
from headrace.kafka.errors import CommitError, KafkaError, UnknownTopicError

__all__ = ["Commits", "Stays"]

Stays = dict[tuple[str, int], Partition]
"""The partitions that are ours now, by topic and number."""

_log = logging.getLogger("headrace.kafka")
_TICK = 0.05
_SOON = 1.0
_SESSIONS = 2
"""How many must end before a group is balanced: that of a member who died, then that of its leader."""


class Commits:
    """Sent only where the value grew in its epoch, and never for a stay that is over. `fail` ends the subscription."""

    def __init__(
        self,
        stays: Stays,
        interval: float,
        now: Callable[[], float],
        fail: Callable[[BaseException], None],
        *,
        session: float,
    ) -> None:
        self._stays = stays
        self._interval = interval
        self._balancing = _SESSIONS * session
        """The longest time, in seconds, for which a group is balanced and no commit is answered."""
        self._now = now
        self._fail = fail
        self._next = 0.0
        self._open = 0
        self._failure: KafkaError | None = None
        self._troubled = False
        self._silent = False
        """Whether the coordinator did not answer in time when somebody waited for it."""
        self._cut_off = False
        """Whether links have failed since the last good answer."""
        self._wordless = False
        """Whether what is finished beyond an offset is not said: the broker takes no text so long."""

    def send_due(self, consumer: Any, *, grouped: bool) -> None:
        """Every interval: what has grown, without waiting for the answer. Not `grouped`: nobody is told."""
        now = self._now()
        if now >= self._next:
            self._next = now + self._interval
            self._hear_ends(consumer)
            if grouped and not self._open:  # one at a time: the driver repeats a failed one, and behind a later
                self.send(consumer)  # one that would put the group back

    def _hear_ends(self, consumer: Any) -> None:
        """What the driver has heard of the ends of the logs; it asks nobody."""
        for stay in self._stays.values():
            _, high = consumer.get_watermark_offsets(place(*stay.key), cached=True)
            stay.end = high if high >= 0 else stay.end

    def send(self, consumer: Any) -> None:
        """What has grown, without waiting for the answer."""
        self._send(consumer, self._grown())

    def _send(self, consumer: Any, offsets: list[Any]) -> None:
        if not offsets:
            return
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
            self._open += 1
        except driver.KafkaException as error:
            self._judge(driver.translated(error), offsets)

    def wait(self, consumer: Any, stays: Iterable[Partition]) -> None:
        """What has grown, confirmed. At a revoke: where it fails, it is the next member's to do it again."""
        if self._silent:  # the driver would wait for minutes
            return
        spoke = not self._wordless
        self._commit(consumer, stays)
        if spoke and self._wordless:
            self._commit(consumer, stays)

    def _commit(self, consumer: Any, stays: Iterable[Partition]) -> None:
        offsets = self._last(stays)
        if not offsets:
            return
        try:
            answered = consumer.commit(offsets=offsets, asynchronous=False)
        except driver.KafkaException as error:
            self._judge(driver.translated(error), offsets)
        else:
            self._take(answered or offsets)

    def settled(self, consumer: Any, timeout: float, more: Callable[[Any], None], turn: Callable[[], bool]) -> None:
        """Everything finished so far is confirmed, or this raises. `more` gets the records that came meanwhile.

        By commits that are not waited for inside of the driver: that wait has no end while the coordinator is away.
        `turn` is called after each look, and says whether nobody waits any more. `timeout` is for a coordinator that
        cannot be reached; one that balances the group is waited for. Whoever asks again after a wait in vain hears of
        it soon: an end flushes, and then closes.
        """
        began = self._now()
        failed: KafkaError | None = None
        wanted = [(stay, stay.epoch, value) for stay in self._ours() if (value := self._wanted(stay)) is not None]
        while any(self._is_missing(*each) for each in wanted):
            if not self._open:
                self._failure = None
                self._send(consumer, self._last(self._stays.values()))
            record = consumer.poll(_TICK)
            if record is not None:
                more(record)
            failed = self._failure or failed
            if isinstance(failed, CommitError):
                raise failed
            patience = self._patience(timeout)
            if turn() or self._now() - began >= patience:
                self._silent = True
                raise failed or BrokerTimeoutError(f"the coordinator confirmed no commit within {patience:g} s")

    def longest(self, timeout: float) -> float:
        """How long `settled` takes at the most; with some slack, as it is to say first what is the matter."""
        return timeout + self._balancing + _SOON

    def _patience(self, timeout: float) -> float:
        """The driver sends a commit behind the join it waits for, and a broker answers a link's requests in order.

        *Seen*, librdkafka 2.16: while a dead member's session ends nothing is answered; nor while its successor waits
        for a leader that has died, too.
        """
        if self._silent:
            return min(timeout, _SOON)
        return timeout if self._cut_off else timeout + self._balancing

    def cut_off(self) -> None:
        """A link has failed: the driver's word."""
        self._cut_off = True

    def answered(self, error: Any, offsets: list[Any]) -> None:
        """The driver's callback, out of a poll."""
        self._open = max(0, self._open - 1)
        if error is not None:
            self._judge(driver.translated(error), offsets)
        else:
            self._silent = self._cut_off = False
            self._take(offsets)

    def _is_missing(self, stay: Partition, epoch: Epoch, wanted: tuple[int, str]) -> bool:
        """Whether it is still to be confirmed; more than that may be by now, or it is not ours to say any more."""
        if epoch.dead or self._stays.get(stay.key) is not stay:
            return False
        confirmed = epoch.confirmed
        if confirmed is None or confirmed[0] < wanted[0]:
            return True
        return confirmed[0] == wanted[0] and confirmed != wanted and not self._wordless

    def _ours(self) -> list[Partition]:
        return list(self._stays.values())

    def _grown(self) -> list[Any]:
        """Where more is finished than was sent."""
        offsets: list[Any] = []
        for stay in self._ours():
            epoch = stay.epoch
            value = epoch.tracker.committable
            if value is not None and not epoch.dead and (epoch.sent is None or value > epoch.sent[0]):
                epoch.sent = value, ""
                offsets.append(place(*stay.key, value, epoch.leader_at(value)))
        return offsets

    def _last(self, stays: Iterable[Partition]) -> list[Any]:
        """What is not confirmed as it is wanted in the end."""
        offsets: list[Any] = []
        for stay in list(stays):
            epoch, wanted = stay.epoch, self._wanted(stay)
            if wanted is not None and not epoch.dead and wanted != epoch.confirmed:
                epoch.sent = wanted
                offsets.append(place(*stay.key, wanted[0], epoch.leader_at(wanted[0]), wanted[1]))
        return offsets

    def _take(self, offsets: list[Any]) -> None:
        """The answer, partition by partition."""
        for each in offsets:
            if each.error is not None:
                self._judge(driver.translated(each.error), [each])
                continue
            stay = self._stays.get((each.topic, each.partition))
            sent = None if stay is None else stay.epoch.sent
            if stay is not None and sent is not None and each.offset == sent[0]:
                stay.epoch.confirmed = sent
                self._troubled = False

    def _judge(self, error: KafkaError, offsets: list[Any]) -> None:
        """A failed commit leaves what is stored as it was: tried again at the next interval, where it is still ours."""
        for each in offsets:
            stay = self._stays.get((each.topic, each.partition))
            if stay is not None:
                stay.epoch.sent = stay.epoch.confirmed
        if error.code == Code.OFFSET_METADATA_TOO_LARGE and not self._wordless:
            self._wordless = True
            return
        self._failure = error
        self._cut_off = self._cut_off or isinstance(error, UnknownTopicError)  # gone, or not heard of by all brokers
        if _is_final(error):
            self._failure = _refused(error)
            self._fail(self._failure)
        elif not self._troubled:
            self._troubled = True
            _log.warning("a commit failed and is repeated: %s", error)

    def _wanted(self, stay: Partition) -> tuple[int, str] | None:
        """What a last commit should say: the loop's summary, unless more was finished since."""
        last, value = stay.epoch.last, stay.epoch.tracker.committable
        if last is not None and (value is None or last[0] >= value):
            return (last[0], "") if self._wordless else last
        return None if value is None else (value, "")


def _is_final(error: KafkaError) -> bool:
    """Whether no commit of ours is taken any more. A topic that is there no more is told of by another way."""
    return isinstance(error, CommitError) or (ends(error) and not isinstance(error, UnknownTopicError))


def _refused(error: KafkaError) -> CommitError:
    failure = CommitError(f"a commit was refused: {error}", code=error.code, name=error.name, fatal=error.fatal)
    failure.__cause__ = error
    return failure
