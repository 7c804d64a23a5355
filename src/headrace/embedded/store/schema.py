"""The tables of both files, and how a connection to them is opened."""

from __future__ import annotations

import apsw

__all__ = [
    "APPLICATION_ID",
    "CONSUMERS",
    "FORMAT",
    "REPLAY",
    "STREAMS",
    "create_stream_tables",
    "drop_stream_tables",
]

APPLICATION_ID = 0x48524143  # "HRAC"
FORMAT = 1

STREAMS = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE stream(
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, config TEXT NOT NULL, created INTEGER NOT NULL,
    first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, last_ts INTEGER NOT NULL, msgs INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    indexed_from INTEGER NOT NULL DEFAULT 0, only_subject INTEGER NOT NULL DEFAULT 0,
    last_id TEXT NOT NULL DEFAULT '');
CREATE TABLE subject(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE subject_state(
    stream INTEGER NOT NULL, subject INTEGER NOT NULL, msgs INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    PRIMARY KEY(stream, subject)) WITHOUT ROWID;
"""

# subject_msg holds the messages from `indexed_from` on: those before came while the stream had one subject (0: it still
# has), and indexing a million of them when the second comes would hold up every publisher for half a second. The view
# is the index of all.
STREAM_TABLES = """
CREATE TABLE msg_{id}(
    seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, subject INTEGER NOT NULL, expires INTEGER,
    headers BLOB, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX expires_{id} ON msg_{id}(expires) WHERE expires IS NOT NULL;
CREATE TABLE dedup_{id}(msg_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, ts INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE subject_msg_{id}(subject INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(subject, seq)) WITHOUT ROWID;
CREATE VIEW subject_seq_{id} AS
    SELECT subject, seq FROM subject_msg_{id} UNION ALL
    SELECT stream.only_subject AS subject, msg_{id}.seq AS seq FROM stream CROSS JOIN msg_{id}
    WHERE stream.id = {id} AND msg_{id}.seq < stream.indexed_from;
"""

REPLAY = """
CREATE TABLE replay(
    consumer INTEGER PRIMARY KEY, stamp INTEGER NOT NULL, at INTEGER NOT NULL, last_seq INTEGER NOT NULL);
"""
"""The last delivery of each consumer that replays. Stores made before there was such a table get it when opened."""

CONSUMERS = (
    """
CREATE TABLE consumer(
    id INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER NOT NULL, name TEXT NOT NULL, config TEXT NOT NULL,
    created INTEGER NOT NULL,
    delivered_c INTEGER NOT NULL, delivered_s INTEGER NOT NULL, floor_c INTEGER NOT NULL, floor_s INTEGER NOT NULL,
    active INTEGER NOT NULL, inactive INTEGER, since INTEGER NOT NULL, scanned INTEGER NOT NULL,
    snapshot BLOB, UNIQUE(stream, name));
CREATE TABLE lease(
    consumer INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL, first_c INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    deadline INTEGER NOT NULL, open INTEGER NOT NULL, seqs BLOB, acked BLOB, PRIMARY KEY(consumer, lo)) WITHOUT ROWID;
CREATE TABLE pending(
    consumer INTEGER NOT NULL, seq INTEGER NOT NULL, first_c INTEGER NOT NULL, due INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    queue INTEGER, owner INTEGER, PRIMARY KEY(consumer, seq)) WITHOUT ROWID;
CREATE INDEX pending_due ON pending(consumer, due, queue);
CREATE TABLE mark(stream INTEGER PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE moment(
    id INTEGER PRIMARY KEY CHECK(id = 1), boot TEXT NOT NULL, wall INTEGER NOT NULL, clock INTEGER NOT NULL);
"""
    + REPLAY
)


def create_stream_tables(connection: apsw.Connection, stream_id: int) -> None:
    """The tables of one stream. Names are made of its id: a user's text is never an SQL identifier."""
    connection.execute(STREAM_TABLES.format(id=int(stream_id)))


def drop_stream_tables(connection: apsw.Connection, stream_id: int) -> None:
    """Drop them."""
    connection.execute(f"DROP VIEW IF EXISTS subject_seq_{int(stream_id)}")
    for table in ("msg", "dedup", "subject_msg"):
        connection.execute(f"DROP TABLE IF EXISTS {table}_{int(stream_id)}")
