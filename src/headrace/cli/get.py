"""`headrace get`: one stored message."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headrace.cli.messages import Stored, body_text, stored, stream_of_topic
from headrace.cli.opening import open_streams, run
from headrace.cli.options import DEFAULT_URL, Json, Url
from headrace.cli.output import cell, print_document, safe

__all__ = ["get"]


def get(
    topic: Annotated[str, typer.Argument(help="Topic.")],
    sequence: Annotated[int | None, typer.Argument(min=1, help="Its place in the stream; none = the newest.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Only the body, byte for byte.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Print one message of a topic: the newest, or the one at a sequence."""
    found = run(_get(url, topic, sequence))
    if raw:
        sys.stdout.buffer.write(found.message.body)
        sys.stdout.buffer.flush()
    elif json:
        print_document(found.facts())
    else:
        _print(found)


async def _get(url: str, topic: str, sequence: int | None) -> Stored:
    async with open_streams(url, look_only=True) as streams:
        stream = await stream_of_topic(streams, topic)
        if sequence is None:
            return stored(await stream.get_last_msg_for_subject(topic), stream.name)
        return stored(await stream.get_msg(sequence), stream.name)


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
