"""What a program has done so far, as far as an accepted difference depends on it."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tests.differential.side import Step


class Near(NamedTuple):
    """A number that a program gives relative to what is there: the stream's last sequence, or that of a subject."""

    subject: str | None
    distance: int


class Held(NamedTuple):
    """A message handed out, and how many consumers of its one's name had been dropped before."""

    stream: str
    consumer: str
    drops: int
    sequence: int
    deliveries: int


@dataclass
class PastConsumer:
    config: dict
    told: dict = field(default_factory=dict)
    """Its latest info."""
    purged: bool = False
    deleted: bool = False
    raised: bool = False
    """Its `max_deliver` was raised."""
    least_deliver: float = 0
    """The least `max_deliver` that it had."""
    handed_back: set = field(default_factory=set)
    """What was handed back without a delay, and not pulled again."""


@dataclass
class PastStream:
    config: dict
    told: dict = field(default_factory=dict)
    consumers: dict = field(default_factory=dict)
    was_interest: bool = False
    purged: bool = False
    purged_to: bool = False
    """Up to a sequence."""
    ahead: bool = False
    """A consumer began behind what was there and what came next."""


class Past:
    def __init__(self):
        self.streams = {}
        self.held = []
        """Every message handed out."""
        self.drops = Counter()

    def consumer(self, stream, name):
        return self.streams[stream].consumers.get(name) if stream in self.streams else None

    def consumers(self, stream):
        return self.streams[stream].consumers.values() if stream in self.streams else ()

    def handed_out(self, place):
        """The message that a `settle` of this place is about, if any was handed out."""
        return self.held[place % len(self.held)] if self.held else None

    async def resolved(self, step, side):
        """The step with every `Near` replaced by the number it stands for now, and a length of time by its end."""
        if step.name == "pause":
            stream, name, seconds = step.arguments
            return Step("pause_until", (stream, name, datetime.now(UTC) + timedelta(seconds=seconds)), {})
        options = dict(step.options)
        if isinstance(options.get("expect"), dict):
            options["expect"] = {name: await self._number(step, one, side) for name, one in options["expect"].items()}
        return Step(step.name, step.arguments, options)

    async def _number(self, step, value, side):
        if not isinstance(value, Near):
            return value
        covering = [one.told for one in self.streams.values() if one.told]
        if value.subject is None:
            last = covering[0]["last_sequence"] if covering else 0
        else:
            found = [await side.take(Step("last", (name, value.subject), {})) for name in self.streams]
            last = max((one["sequence"] for one in found if "sequence" in one), default=0)
        return max(0, last + value.distance)

    def took(self, step, answer):
        """Take over what a step did, by the answer to it."""
        if isinstance(answer, dict) and "error" in answer:
            return
        note = getattr(self, f"_{step.name}", None)
        if note is not None:
            note(*step.arguments, answer=answer, **step.options)

    def _create(self, name, *, answer, **_):
        one = self.streams.setdefault(name, PastStream(answer))
        one.config = answer
        one.was_interest = one.was_interest or answer["retention"] == "interest"

    _update = _create_or_update = _create

    def _delete(self, name, *, answer):
        self.streams.pop(name, None)

    def _consumer(self, stream, how="create_or_update", *, answer, **_):
        if stream not in self.streams:
            return
        known = self.streams[stream].consumers.get(answer["name"])
        if known is None:
            one = self.streams[stream]
            one.consumers[answer["name"]] = PastConsumer(answer, least_deliver=most_of(answer))
            one.ahead = one.ahead or answer.get("start_sequence", 0) > one.told.get("last_sequence", 0) + 1
            return
        known.raised = known.raised or most_of(known.config) < most_of(answer)
        known.least_deliver = min(known.least_deliver, most_of(answer))
        known.config = answer

    def _drop(self, stream, name, *, answer):
        self.streams[stream].consumers.pop(name, None)
        self.drops[stream, name] += 1

    def _pull(self, stream, name, limit, *, answer, **_):
        got = answer["got"] if isinstance(answer, dict) else answer
        drops = self.drops[stream, name]
        found = [Held(stream, name, drops, one["sequence"], one["deliveries"]) for one in got if "error" not in one]
        self.held += found
        known = self.consumer(stream, name)
        if known is not None:
            known.handed_back -= {one.sequence for one in found}

    _fetch = _pull

    def _settle(self, place, how="ack", *, answer, delay=None, **_):
        held = self.handed_out(place)
        known = held and self.consumer(held.stream, held.consumer)
        if known and how == "nak" and delay is None:
            known.handed_back.add(held.sequence)

    def _purge(self, name, *, answer, sequence=None, **_):
        self._was_purged(name)
        self.streams[name].purged_to |= sequence is not None

    def _was_purged(self, name):
        self.streams[name].purged = True
        for one in self.consumers(name):
            one.purged = True

    def _publish(self, subject, data=b"x", *, answer, rollup=None, **_):
        if rollup is not None and answer["stream"] in self.streams:
            self._was_purged(answer["stream"])

    def _remove(self, name, sequence, *, answer):
        for one in self.consumers(name):
            one.deleted = True

    _secure_remove = _remove


def filters_of(config):
    only = config.get("filter_subject")
    return (only,) if only else tuple(config.get("filter_subjects", ()))


def most_of(config):
    return config.get("max_deliver") or float("inf")
