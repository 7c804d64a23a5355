"""Plans: what a poller reads. A group's topics, as its members share them out; or partitions of its own choice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.core.errors import ClosedError
from headrace.kafka import driver
from headrace.kafka.codes import MEMBERSHIP, Code
from headrace.kafka.consuming.beyond import read
from headrace.kafka.consuming.outofrange import OutOfRange
from headrace.kafka.consuming.partition import Partition
from headrace.kafka.consuming.places import Key, ends, place
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.errors import KafkaError, UnknownGroupError, UnknownTopicError

__all__ = ["FixedPlan", "GroupPlan"]

_log = logging.getLogger("headrace.kafka")
_AGAIN = 0.2
_MOST_BEYOND = 100_000
"""Finished offsets beyond a committed one that are believed: more than any member holds is nonsense."""
_PARTITIONS_EVERY = 30.0
_TOPICS_EVERY = 5.0
_LOOK = 1.0
_HEARD_OF = 30.0
"""Seconds until all brokers have heard of a new topic."""
_FAREWELL = 5.0
_TICK = 0.05
_NOT_THERE = frozenset({Code.UNKNOWN_TOPIC_OR_PART, Code.LOCAL_UNKNOWN_TOPIC, Code.LOCAL_UNKNOWN_PARTITION})
_SIGN = 0.5


class GroupPlan:
    """The topics of a group.

    ``starts``: where each partition begins in a topic that is new to the group, worked out before. These places are
    stored before the group is joined; where others are in it already, the first assignment stores its own.
    """

    commits = True

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        *,
        starts: Mapping[Key, int],
        create: bool,
        protocol: str,
        static: bool,
        drain_timeout: float,
        out_of_range: OutOfRange,
    ) -> None:
        self._group = group
        self._topics = list(topics)
        self._starts = starts
        self._create = create
        self._eager = protocol == "eager"
        self._static = static
        self._unnamed_after = protocol != "consumer"
        """Whether the driver forgets its member id as it leaves."""
        self._joined = self._subscribed = False
        self._drain_timeout = drain_timeout
        self._fresh: set[str] = set()
        """Topics that are new to the group and have no places yet."""
        self._gone: set[str] = set()
        """Topics that were not there at the last look."""
        self._next = 0.0
        self._trouble = out_of_range
        self._poller: Poller

    def begin(self, poller: Poller, consumer: Any) -> None:
        """Give a new group its places, then subscribe. ``UnknownGroupError``: there is none, and none is to be made."""
        self._poller = poller
        self._next = poller.now() + _TOPICS_EVERY
        asked = self._committed(consumer, [place(*key) for key in self._starts])
        if poller.leaving or poller.failure is not None:
            raise poller.failure or ClosedError("the subscription was closed")
        known = {each.topic for each in asked if each.offset >= 0}
        self._fresh = set(self._topics) - known
        if self._fresh and not self._create:
            missing = ", ".join(sorted(self._fresh))
            raise UnknownGroupError(f"group {self._group!r} has no place in {missing}, and create is False")
        places = [place(*key, offset) for key, offset in self._starts.items() if key[0] in self._fresh]
        if places and self._store(consumer, places):
            self._fresh.clear()
        self._subscribed = True
        consumer.subscribe(
            self._topics,
            on_assign=self._guarded(self._assign),
            on_revoke=self._guarded(self._revoke),
            on_lost=self._guarded(self._lost),
        )

    def look(self, poller: Poller, consumer: Any) -> None:
        """A deleted topic is taken from its members, often without a word: one that has nothing here is asked for."""
        now = poller.now()
        if now < self._next:
            return
        self._next = now + _TOPICS_EVERY
        ours = {topic for topic, _ in poller.stays}
        self._gone = {topic for topic in self._topics if topic not in ours and self._is_gone(consumer, topic)}

    def trouble(self, poller: Poller, consumer: Any, record: Any) -> None:
        """A broker may not have heard of a topic yet, or of its leaders: whether it is gone is asked."""
        if record.error().code() in _NOT_THERE:
            _log.warning("%s: %s", record.topic(), driver.translated(record.error()))
        else:
            self._trouble(poller, consumer, record)

    def leave(self, poller: Poller, consumer: Any) -> None:
        """Leave the group. Closed while it joins, or right after, the driver says no word to the coordinator.

        *Seen*, librdkafka 2.16: the group then waits for the one that is gone until its session is over, 45 s.
        So a join that is under way is waited for, and the driver is watched as it leaves. A static member stays.
        """
        end = poller.now() + _FAREWELL
        while not self._joined and poller.failure is None and poller.now() < end:
            consumer.poll(_TICK)
        if self._static:
            return
        consumer.unsubscribe()
        while self._unnamed_after and consumer.memberid() and poller.now() < end:
            consumer.poll(_TICK)

    def _is_gone(self, consumer: Any, topic: str) -> bool:
        """``UnknownTopicError`` the second time in a row: what one broker has not heard of yet may be there."""
        try:
            found = consumer.list_topics(topic, timeout=_LOOK).topics.get(topic)
        except driver.KafkaException:
            return False
        if found is None or found.error is None or found.error.code() != Code.UNKNOWN_TOPIC_OR_PART:
            return False
        if topic in self._gone:
            raise UnknownTopicError(f"topic {topic!r} is there no more")
        return True

    def _guarded(self, callback: Callable[[Any, list[Any]], None]) -> Callable[[Any, list[Any]], None]:
        """What a callback raises must not go through the driver, which loses its head over it."""

        def call(consumer: Any, given: list[Any]) -> None:
            try:
                callback(consumer, given)
            except Exception as error:  # noqa: BLE001  (it ends the subscription)
                self._poller.fail(driver.translated(error) if isinstance(error, driver.KafkaException) else error)

        return call

    def _assign(self, consumer: Any, given: list[Any]) -> None:
        """Partitions come. Their committed offsets are read until the answer is there: none is never guessed."""
        self._joined = True
        places = self._placed(consumer, given)
        if self._poller.leaving:  # taken only to be given back; unanswered, the driver would never end
            self._answer(consumer, given)
            return
        self._answer(consumer, places)
        self._poller.keep(
            [
                Partition(each.topic, each.partition, each.offset, read(each.offset, each.metadata, _MOST_BEYOND))
                for each in places
            ]
        )

    def _answer(self, consumer: Any, places: list[Any]) -> None:
        if self._eager:
            consumer.assign(places)
        else:
            consumer.incremental_assign(places)

    def _revoke(self, consumer: Any, given: list[Any]) -> None:
        """Partitions go: what runs may end, what is finished is committed."""
        poller = self._poller
        stays = self._stays_of(given)
        if stays and poller.patient:
            quiet = threading.Event()
            if poller.tell(poller.listener.revoking, stays, quiet.set):
                self._await(quiet)
        poller.commits.wait(consumer, stays)
        self._drop(consumer, given, stays, lost=False)

    def _await(self, quiet: threading.Event) -> None:
        """What stays with us goes on meanwhile, so the thread shows that it lives."""
        end = self._poller.now() + self._drain_timeout
        while (left := end - self._poller.now()) > 0 and not quiet.wait(min(left, _SIGN)):
            self._poller.fence.alive()

    def _lost(self, consumer: Any, given: list[Any]) -> None:
        """They are another's already."""
        self._drop(consumer, given, self._stays_of(given), lost=True)

    def _drop(self, consumer: Any, given: list[Any], stays: list[Partition], *, lost: bool) -> None:
        self._poller.drop(stays, lost=lost)
        if self._eager:
            consumer.unassign()
        else:
            consumer.incremental_unassign(given)

    def _stays_of(self, given: list[Any]) -> list[Partition]:
        stays = self._poller.stays
        return [stays[key] for each in given if (key := (each.topic, each.partition)) in stays]

    def _placed(self, consumer: Any, given: list[Any]) -> list[Any]:
        """Where to begin each."""
        places: list[Any] = []
        missing: list[Any] = []
        for each in self._committed(consumer, given):
            key = each.topic, each.partition
            if each.offset >= 0:
                places.append(each)
            elif each.topic in self._fresh:
                missing.append(place(*key, self._starts.get(key, driver.OFFSET_BEGINNING)))
            else:  # added later, beside others that have an offset
                places.append(place(*key, driver.OFFSET_BEGINNING))
        stored = [each for each in missing if each.offset >= 0]
        if stored and not self._store(consumer, stored):
            _log.warning("where group %s begins was not stored: a rebalance was on its way", self._group)
        return places + missing

    def _committed(self, consumer: Any, given: list[Any]) -> list[Any]:
        troubled = False
        while self._may_ask:
            answered, failure = _asked(lambda: consumer.committed(given, timeout=self._poller.asking))
            if failure is None:
                return answered
            if ends(failure):
                raise failure
            if not troubled:
                troubled = True
                _log.warning("the committed offsets could not be read, asked again: %s", failure)
            self._rest(consumer)
        return []

    def _store(self, consumer: Any, places: list[Any]) -> bool:
        """Commit where the group begins. False: others are in it, and this is not the time."""
        end = self._poller.now() + _HEARD_OF
        while self._may_ask:
            _, failure = _asked(lambda: consumer.commit(offsets=places, asynchronous=False))
            if failure is None:
                return True
            if failure.code in MEMBERSHIP:
                return False
            new = isinstance(failure, UnknownTopicError) and self._poller.now() < end
            if not new and (ends(failure) or not failure.retriable):
                raise failure
            self._rest(consumer)
        return False

    @property
    def _may_ask(self) -> bool:
        """Whether an answer of the brokers is still worth waiting for."""
        return not self._poller.leaving and self._poller.failure is None

    def _rest(self, consumer: Any) -> None:
        """Before it is asked again. The driver tells of a refusal only to who polls.

        A callback may not: the driver would lose its way back.
        """
        if not self._subscribed:
            self._poller.hear(consumer)
        self._poller.rest(_AGAIN)


def _asked(question: Callable[[], Any]) -> tuple[list[Any], KafkaError | None]:
    """The answer, partition by partition; and what went wrong, with all or with one of them."""
    try:
        answered = list(question())
    except driver.KafkaException as raised:
        return [], driver.translated(raised)
    error = next((each.error for each in answered if each.error is not None), None)
    return answered, None if error is None else driver.translated(error)


class FixedPlan:
    """Partitions that nobody else shares out. ``added``: what has come to the topics since; asked for every 30 s."""

    commits = False

    def __init__(
        self,
        starts: Mapping[Key, int],
        *,
        out_of_range: OutOfRange,
        added: Callable[[Any, frozenset[Key]], Sequence[Key]] | None = None,
    ) -> None:
        self._starts = dict(starts)
        self._added = added
        self._next = 0.0
        self._trouble = out_of_range

    def begin(self, poller: Poller, consumer: Any) -> None:
        """Assign."""
        self._next = poller.now() + _PARTITIONS_EVERY
        self._assign(poller, consumer, self._starts)

    def look(self, poller: Poller, consumer: Any) -> None:
        """Take up what was added, from its beginning."""
        now = poller.now()
        if self._added is None or now < self._next:
            return
        self._next = now + _PARTITIONS_EVERY
        try:
            found = self._added(consumer, frozenset(self._starts))
        except driver.KafkaException as error:
            _log.warning("the partitions could not be asked for: %s", driver.translated(error))
            return
        fresh = dict.fromkeys(found, driver.OFFSET_BEGINNING)
        if fresh:
            self._starts |= fresh
            self._assign(poller, consumer, fresh)

    def trouble(self, poller: Poller, consumer: Any, record: Any) -> None:
        """The driver asks for a coordinator even where there is no group: nobody needs to be allowed that."""
        if record.error().code() != Code.GROUP_AUTHORIZATION_FAILED:
            self._trouble(poller, consumer, record)

    def leave(self, poller: Poller, consumer: Any) -> None:
        """Nobody is told."""

    def _assign(self, poller: Poller, consumer: Any, starts: Mapping[Key, int]) -> None:
        consumer.incremental_assign([place(*key, offset) for key, offset in starts.items()])
        poller.keep([Partition(*key, offset) for key, offset in starts.items()])
