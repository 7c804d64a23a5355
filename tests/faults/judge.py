"""The judge of the fault tests. Knows the files, not the engine: plain sqlite3, in a process of its own.

``python judge.py`` reads one JSON line per case, {"directory", "acknowledged": {sequence: body}}, and answers with one:
a list of what is wrong. It runs where the engine does not run (any more): opening a WAL recovers it. "unsynced" (of a
relaxed store): these sequences may be lost, if nothing behind the first lost one is left. "settled": these are settled
for good, consumer c must not have them to deliver. With {"directory"} alone: the messages that can be read.
"""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path


def judge(directory, acknowledged, unsynced=None, settled=()):
    """What is wrong with the store: damage, acknowledged messages lost or changed, consumers ahead of the stream."""
    wrong = []
    last = 0
    try:
        with closing(sqlite3.connect(Path(directory) / "streams.db")) as streams:
            wrong += integrity(streams, "streams.db")
            stored = {}
            for stream, newest in streams.execute("SELECT id, last_seq FROM stream").fetchall():
                rows = streams.execute(f"SELECT seq, data, headers FROM msg_{int(stream)}").fetchall()
                stored |= {sequence: bytes(data) for sequence, data, _ in rows}
                last = max(last, newest)
                wrong += [
                    f"sequence {sequence} is above last_seq {newest}" for sequence, *_ in rows if sequence > newest
                ]
                wrong += torn(headers for *_, headers in rows if headers)
        for sequence, body in acknowledged.items():
            found = stored.get(int(sequence))
            if found is None:
                wrong += lost(int(sequence), stored, unsynced)
            elif found != body.encode():
                wrong.append(f"changed: {sequence} was {body!r} and is {found[:40]!r}")
        with closing(sqlite3.connect(Path(directory) / "consumers.db")) as consumers:
            wrong += integrity(consumers, "consumers.db")
            if settled and (again := sorted(set(settled) - finished(consumers))):
                wrong.append(f"to be delivered again: {again[:5]}")
            for name, delivered in consumers.execute("SELECT name, delivered_s FROM consumer"):
                if delivered > last and unsynced is None:  # else it may have seen what was lost
                    wrong.append(f"consumer {name} is at {delivered}, the stream at {last}")
    except sqlite3.Error as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong


def torn(blocks):
    """Atomic publishes of which a part is stored: one knows its messages by the headers of the batch."""
    batches = {}
    for block in blocks:
        lines = dict(line.split(": ", 1) for line in bytes(block).decode("latin-1").split("\r\n") if ": " in line)
        if "Nats-Batch-Id" in lines:
            places, ends = batches.setdefault(lines["Nats-Batch-Id"], ([], []))
            places.append(int(lines["Nats-Batch-Sequence"]))
            ends += [places[-1]] if "Nats-Batch-Commit" in lines else []
    return [
        f"batch {name} is torn: {sorted(places)[:5]} of {ends}"
        for name, (places, ends) in batches.items()
        if ends != [len(places)] or sorted(places) != list(range(1, len(places) + 1))
    ]


def contents(directory):
    """What can be read of the messages without the engine, in a copy made by the caller: sequence -> body."""
    found = {}
    try:
        with closing(sqlite3.connect(Path(directory) / "streams.db")) as streams:
            for (stream,) in streams.execute("SELECT id FROM stream").fetchall():
                for sequence, data in streams.execute(f"SELECT seq, data FROM msg_{int(stream)}"):
                    found[sequence] = bytes(data).decode("latin-1")
    except (sqlite3.Error, TypeError, ValueError):
        pass  # damaged: so far
    return found


def lost(sequence, stored, unsynced):
    if unsynced is None or sequence not in unsynced:
        return [f"lost: {sequence} was acknowledged"]
    behind = max(stored, default=0)
    return [f"a hole: {sequence} is lost, {behind} is left"] if behind > sequence else []


def finished(consumers):
    """What consumer c has delivered and not open."""
    ((number, delivered),) = consumers.execute("SELECT id, delivered_s FROM consumer WHERE name = 'c'")
    waiting = {sequence for (sequence,) in consumers.execute("SELECT seq FROM pending WHERE consumer = ?", (number,))}
    leases = consumers.execute("SELECT lo, hi, acked FROM lease WHERE consumer = ? AND seqs IS NULL", (number,))
    for low, high, acked in leases.fetchall():
        marks = acked or bytes(high - low + 1)
        waiting |= {low + place for place, mark in enumerate(marks) if not mark}
    return set(range(1, delivered + 1)) - waiting


def integrity(connection, name):
    found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return [] if found == ["ok"] else [f"{name}: {found[:3]}"]


def main():
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(contents(**case) if len(case) == 1 else judge(**case)), flush=True)


if __name__ == "__main__":
    main()
