"""Wrong embedded engines, each with one promise broken, and the directed program that must notice."""

from headrace.core.delivery import ACK, Nak, Reject
from headrace.embedded.consumers import rules
from headrace.embedded.consumers.session import EmbeddedSession
from headrace.embedded.engine import EmbeddedStreams
from headrace.embedded.publishing import batch, checks
from headrace.embedded.stream import EmbeddedStream
from headrace.embedded.streams import management
from headrace.streams.errors import error_for
from headrace.streams.info import PubAck
from tests.differential.cases import consumers, streams


def instead(owner, name, made):
    """Puts what `made` makes of the original in its place."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, made(getattr(owner, name)))


def nothing(original):
    return lambda *_, **__: None


def settling(change):
    """Another outcome than the one that was given; ``None`` loses it."""

    def made(original):
        def settle(self, msg, outcome):
            changed = change(outcome)
            if changed is not None:
                original(self, msg, changed)

        return settle

    return made


def pulling(change):
    def made(original):
        async def pull(self, limit, wait, **options):
            return change(await original(self, limit, wait, **options))

        return pull

    return made


def never_a_duplicate(original):
    async def publish(self, *arguments, **options):
        ack = await original(self, *arguments, **options)
        return PubAck(ack.stream, ack.sequence, duplicate=False)

    return publish


def one_code_for_all(original):
    return lambda code, err_code, text, **further: error_for(code, 10057 if err_code == 10043 else err_code, text)


def ignoring_offset(original):
    async def read(self, *, offset=0, **options):
        return await original(self, **options)

    return read


def keeping_one_more(original):
    def bound(connection, record, options, now):
        return original(connection, record, options, now) - (1 if options.keep else 0)

    return bound


MUTANTS = {
    "expectations are ignored": (instead(checks, "_sequences", nothing), streams.CASES["expect"]),
    "discard new keeps taking": (instead(checks, "_discard_new", nothing), streams.CASES["discard new"]),
    "limits are not kept": (instead(batch, "enforce", nothing), streams.CASES["limits"]),
    "a duplicate is not called one": (
        instead(EmbeddedStreams, "publish", never_a_duplicate),
        streams.CASES["dedup edges"],
    ),
    "keep keeps one more": (instead(management, "purge_bound", keeping_one_more), streams.CASES["purge2"]),
    "one code too few": (instead(management, "error_for", one_code_for_all), streams.CASES["delete"]),
    "offset is ignored": (instead(EmbeddedStream, "read", ignoring_offset), streams.CASES["reading"]),
    "a workqueue takes anybody": (instead(rules, "_check_retention", nothing), consumers.CASES["workqueue rules"]),
    "a nak is an ack": (
        instead(EmbeddedSession, "settle", settling(lambda outcome: ACK if isinstance(outcome, Nak) else outcome)),
        consumers.CASES["nak"],
    ),
    "a term is lost": (
        instead(EmbeddedSession, "settle", settling(lambda outcome: None if isinstance(outcome, Reject) else outcome)),
        consumers.CASES["floors"],
    ),
    "a pull turns its messages round": (
        instead(EmbeddedSession, "pull", pulling(lambda got: got[::-1])),
        consumers.CASES["deliver new"],
    ),
}
