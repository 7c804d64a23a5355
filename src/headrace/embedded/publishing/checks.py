"""The checks of a publish inside its transaction, in the order that was seen on a nats-server (jetstream.md 3.4.3)."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from headrace.core.broker import Expect
from headrace.core.delivery import Position
from headrace.core.errors import PublishError
from headrace.embedded.consumers.retention import wanted
from headrace.embedded.publishing.run import Entry, Run
from headrace.embedded.streams.limits import oldest_bytes
from headrace.streams.config import DiscardPolicy, RetentionPolicy, Rollup, StreamPublishOptions
from headrace.streams.errors import NoStreamResponseError, publish_error_for
from headrace.streams.info import PubAck

__all__ = ["checked", "nothing_answers"]

NONE = StreamPublishOptions()


def nothing_answers(subject: str, msg_id: str | None) -> NoStreamResponseError:
    """The error of a publish that no stream covers."""
    return NoStreamResponseError(f"no stream covers {subject!r}", message_id=msg_id)


def checked(
    connection: apsw.Connection, run: Run, entry: Entry, first_of: Callable[[Run, str], int | None]
) -> PublishError | PubAck | bool:
    """Why it is refused; the ack of its first copy; or whether anybody wants it kept.

    What precedes it in its batch was written before, so that everything can be asked of the database.
    """
    options = entry.options if isinstance(entry.options, StreamPublishOptions) else NONE
    refused = _before_duplicate(connection, run, entry, options)
    if refused is not None:
        return refused
    if entry.msg_id is not None and (first := first_of(run, entry.msg_id)) is not None:
        return PubAck(run.name, first, duplicate=True)
    expect = options.expect
    if expect is not None and expect.last_id is not None and expect.last_id != run.last_id:
        return _refusal(entry, 400, 10070, f"wrong last msg ID: {run.last_id}")
    config = run.record.config
    if options.rollup is not None and not config.allow_rollup:
        return _refusal(entry, 500, 10111, "rollup not permitted")
    if config.retention is RetentionPolicy.INTEREST and not wanted(connection, run.record.id, entry.subject):
        return False  # takes no room: no limit refuses it
    full = _discard_new(connection, run, entry, options.rollup) if config.discard is DiscardPolicy.NEW else None
    return True if full is None else full


def _before_duplicate(
    connection: apsw.Connection, run: Run, entry: Entry, options: StreamPublishOptions
) -> PublishError | None:
    config = run.record.config
    if config.sealed:
        return _refusal(entry, 400, 10109, "invalid operation on sealed stream")
    size = len(entry.data) + (len(entry.block) + 12 if entry.block else 0)
    if config.max_message_size is not None and size > config.max_message_size:
        return _refusal(entry, 400, 10054, "message size exceeds maximum allowed", limit=config.max_message_size)
    if options.expect_stream is not None and options.expect_stream != run.name:
        return _refusal(entry, 400, 10060, "expected stream does not match")
    if options.ttl is not None and not config.allow_message_ttl:
        return _refusal(entry, 400, 10166, "per-message TTL is disabled")
    return None if options.expect is None else _sequences(connection, run, entry, options, options.expect)


def _sequences(
    connection: apsw.Connection, run: Run, entry: Entry, options: StreamPublishOptions, expect: Expect
) -> PublishError | None:
    if expect.last_for_topic is not None:
        subject = options.expect_subject or entry.subject
        row = connection.execute(
            "SELECT subject_state.last_seq FROM subject_state JOIN subject ON subject.id = subject_state.subject "
            "WHERE subject_state.stream = ? AND subject.name = ?",
            (run.record.id, subject),
        ).fetchone()
        last = 0 if row is None else int(row[0])
        if last != _value(expect.last_for_topic):
            return _refusal(entry, 400, 10071, f"wrong last sequence: {last}")
    if expect.last is not None and _value(expect.last) != run.seq:
        return _refusal(entry, 400, 10071, f"wrong last sequence: {run.seq}")
    return None


def _value(given: int | Position) -> int:
    return given.value if isinstance(given, Position) else given


def _discard_new(connection: apsw.Connection, run: Run, entry: Entry, rollup: Rollup | None) -> PublishError | None:
    """Older ones of the subject make room even here, unless the stream says that they do not; for a rollup always.

    No other limit is lifted for what a rollup deletes: it comes before that.
    """
    config = run.record.config
    freed = 0  # bytes of what this one would push out; never 0 if there is such a message
    if config.max_messages_per_subject is not None:
        row = connection.execute(
            "SELECT subject_state.msgs FROM subject_state JOIN subject ON subject.id = subject_state.subject "
            "WHERE subject_state.stream = ? AND subject.name = ?",
            (run.record.id, entry.subject),
        ).fetchone()
        if row is not None and row[0] >= config.max_messages_per_subject:
            if config.discard_new_per_subject and rollup is None:
                return _refusal(entry, 503, 10077, "maximum messages per subject exceeded")
            freed = oldest_bytes(connection, run.record, entry.subject)
    # what takes the place of another is taken even where limits were lowered below what is there, as by a server
    if config.max_messages is not None and not freed and run.msgs >= config.max_messages:
        return _refusal(entry, 503, 10077, "maximum messages exceeded", limit=config.max_messages)
    if config.max_bytes is not None:
        size = run.fixed + len(entry.subject.encode()) + len(entry.data)
        size += len(entry.block) + run.per_block if entry.block else 0
        if run.bytes + size > config.max_bytes and size > freed:
            return _refusal(entry, 503, 10077, "maximum bytes exceeded", limit=config.max_bytes)
    return None


def _refusal(entry: Entry, code: int, err_code: int, description: str, limit: int | None = None) -> PublishError:
    error = publish_error_for(code, err_code, description, message_id=entry.msg_id, limit=limit)
    assert isinstance(error, PublishError)  # noqa: S101  (publish_error_for gives nothing else)
    return error
