"""`headrace get`: one stored message."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headrace.cli import records
from headrace.cli.messages import Stored, body_text, stored, stream_of_topic
from headrace.cli.opening import open_broker, run, streams_of
from headrace.cli.options import DEFAULT_URL, Json, Partition, Url, is_kafka
from headrace.cli.output import cell, print_document, safe
from headrace.core.errors import ConfigError

__all__ = ["get"]


def get(
    topic: Annotated[str, typer.Argument(help="Topic.")],
    sequence: Annotated[int | None, typer.Argument(min=0, help="Its place in the stream; none = the newest.")] = None,
    *,
    partition: Partition = None,
    raw: Annotated[bool, typer.Option("--raw", help="Only the body, byte for byte.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Print one message of a topic: the newest, or the one at a sequence."""
    check_place(url, sequence, partition)
    found = run(_get(url, topic, sequence, partition))
    if raw:
        sys.stdout.buffer.write(found.message.body)
        sys.stdout.buffer.flush()
    elif json:
        print_document(found.facts())
    else:
        _print(found)


async def _get(url: str, topic: str, sequence: int | None, partition: int | None) -> Stored:
    async with open_broker(url, look_only=True) as broker:
        if (kafka := records.kafka_of(broker)) is not None:
            return await records.one(kafka, topic, partition, sequence)
        streams = streams_of(broker)
        stream = await stream_of_topic(streams, topic)
        if sequence is None:
            return stored(await stream.get_last_msg_for_subject(topic), stream.name)
        return stored(await stream.get_msg(sequence), stream.name)


def check_place(url: str, sequence: int | None, partition: int | None) -> None:
    """A stream begins at 1, and has no partitions: ``ConfigError``. What is on Kafka may be anywhere."""
    if is_kafka(url):
        return
    if partition is not None:
        raise ConfigError(f"only Kafka has partitions, got --partition {partition}")
    if sequence == 0:
        raise ConfigError("the sequences of a stream begin at 1, got 0")


def _print(found: Stored) -> None:
    facts = found.facts()
    width = max([len("sequence"), *(len(name) for name, _ in found.message.headers.items())])
    for name in ("stream", "sequence", "topic", "id", "time", "key", "key_base64"):
        if name in facts:
            value = facts[name]
            print(f"{name:<{width}}  {value if isinstance(value, int) else cell(value)}")
    for name, value in found.message.headers.items():
        print(f"{safe(name):<{width}}  {safe(value if isinstance(value, str) else repr(value))}")
    print()
    print(body_text(facts))
