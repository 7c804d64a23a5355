"""`headrace pub`: one message from an argument or a file, or many from JSON lines."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer

from headrace.cli.exits import NotFoundError, StoppedError
from headrace.cli.opening import open_broker, run
from headrace.cli.options import DEFAULT_URL, Json, Url
from headrace.cli.output import cell, counting, print_document
from headrace.core.broker import Broker
from headrace.core.delivery import Position
from headrace.core.errors import CodecError, ConfigError, PublishError
from headrace.core.headers import Headers
from headrace.core.message import Message, check_message, check_topic

__all__ = ["publish"]

_BATCH = 1_000
_CHUNK = 1 << 20
_LONGEST_LINE = 64 << 20
_STDIN = 0


@dataclass
class _Sent:
    """What was published so far."""

    published: int = 0
    duplicates: int = 0
    last: Position | None = None


@dataclass(frozen=True)
class _Form:
    """How a line becomes a message."""

    topic: str
    headers: Headers
    key_field: str | None
    id_field: str | None

    def message(self, line: bytes, number: int) -> Message:
        """The message of a line; ``CodecError`` names the line, never its text."""
        try:
            value: object = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CodecError(f"line {number} is not JSON: {error}") from None
        key = _field(value, self.key_field, number, "--key")
        message_id = _field(value, self.id_field, number, "--id")
        given: dict[str, Any] = {} if message_id is None else {"id": message_id}
        encoded = None if key is None else key.encode()
        message = Message(topic=self.topic, body=line, key=encoded, headers=self.headers, **given)
        check_message(message)
        return message


def publish(
    topic: Annotated[str, typer.Argument(help="Where it goes.")],
    body: Annotated[str | None, typer.Argument(help="One message; none = JSON lines from stdin.")] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="JSON lines from this file; - is stdin.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="The file is one message, as it is.")] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY|FIELD", help="Key; with lines: the field it is in.")] = None,
    id: Annotated[str | None, typer.Option(metavar="ID|FIELD", help="Id; with lines: the field it is in.")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", metavar="NAME:VALUE")] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish a message, or one for each line of JSON. Returns once all are stored."""
    if body is not None and (file is not None or whole):
        raise ConfigError(f"a message and --file or --whole exclude each other, got {body!a}")
    check_topic(topic)
    headers = _headers(header or [])
    sent = _Sent()
    try:
        if body is not None or whole:
            content = body.encode("utf-8", "surrogateescape") if body is not None else _content(file)
            given: dict[str, Any] = {} if id is None else {"id": id}
            encoded = None if key is None else key.encode("utf-8", "surrogateescape")
            message = Message(topic=topic, body=content, key=encoded, headers=headers, **given)
            check_message(message)
            run(_publish_one(url, message, sent))
        else:
            with _source(file) as descriptor:
                run(_publish_lines(url, descriptor, _Form(topic, headers, key, id), sent))
    finally:
        if sent.published or sys.exc_info()[0] is None:
            _print(topic, sent, json=json)


async def _publish_one(url: str, message: Message, sent: _Sent) -> None:
    async with open_broker(url) as broker:
        await _send(broker, [message], sent)


async def _publish_lines(url: str, descriptor: int, form: _Form, sent: _Sent) -> None:
    status = os.fstat(descriptor)
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    with counting(f"publishing to {form.topic}", total, in_bytes=True) as count:
        async with open_broker(url) as broker:
            number = 0
            async for lines, size in _lines(descriptor):
                for batch in _batches(lines):
                    await _send_lines(broker, form, batch, number, sent)
                    number += len(batch)
                count(size)


@contextmanager
def _source(file: Path | None) -> Generator[int]:
    """The descriptor to read from. Opened outside the loop: a named pipe waits for its writer, and Ctrl-C ends that."""
    descriptor = _STDIN
    try:
        if file is None or str(file) == "-":
            _check_standard_input()
        else:
            descriptor = _opened(file)
        yield descriptor
    except KeyboardInterrupt:
        raise StoppedError from None
    finally:
        if descriptor != _STDIN:
            os.close(descriptor)


def _check_standard_input() -> None:
    if sys.stdin is None:
        raise ConfigError("standard input is closed: give a message or --file")
    if os.isatty(_STDIN):
        print("one message a line, as JSON; Ctrl-D ends", file=sys.stderr)


def _opened(file: Path) -> int:
    if file.is_dir():
        raise ConfigError(f"--file must be a file, got the directory {file}")
    try:
        return os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}") from None


async def _send_lines(broker: Broker, form: _Form, lines: list[bytes], before: int, sent: _Sent) -> None:
    """Publish a batch; where a line is bad, all before it are published first."""
    messages: list[Message] = []
    try:
        for number, line in enumerate(lines, before + 1):
            if line.strip():
                messages.append(form.message(line.strip(), number))
    finally:
        if messages:
            await _send(broker, messages, sent)


async def _send(broker: Broker, messages: list[Message], sent: _Sent) -> None:
    failed: list[PublishError] = []
    for result in await broker.publish_batch(messages):
        if isinstance(result, PublishError):
            failed.append(result)
            continue
        sent.published += not result.duplicate
        sent.duplicates += result.duplicate
        sent.last = result.position
    if failed:
        first = failed[0]
        others = f"; {len(failed) - 1} more of this batch" if len(failed) > 1 else ""
        raise PublishError(f"not published: {first}{others}", fault=first.fault) from first


async def _lines(descriptor: int) -> AsyncIterator[tuple[list[bytes], int]]:
    """What can be read now, as whole lines, with its size: a slow pipe is published as it comes."""
    rest = b""
    while True:
        await _readable(descriptor)
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise CodecError(f"a line of more than {_LONGEST_LINE:,} bytes")
        yield lines, len(chunk)
    if rest:
        yield [rest], 0


async def _readable(descriptor: int) -> None:
    """Wait for input without blocking the loop, so that Ctrl-C ends it; a plain file is always readable."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(descriptor, _ready, ready)
    except PermissionError:
        return
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _ready(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _batches(lines: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(lines), _BATCH):
        yield lines[start : start + _BATCH]


def _content(file: Path | None) -> bytes:
    with _source(file) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as source:
        return source.read()


def _headers(given: list[str]) -> Headers:
    pairs: list[tuple[str, str]] = []
    for text in given:
        name, colon, value = text.partition(":")
        if not colon:
            raise ConfigError(f"--header must be NAME:VALUE, got {text!a}")
        pairs.append((name.strip(), value.strip()))
    return Headers(pairs)


def _field(value: object, field: str | None, number: int, option: str) -> str | None:
    """The text of a field, ``None`` where it is null or not asked for."""
    if field is None:
        return None
    if not isinstance(value, dict) or field not in value:
        raise CodecError(f"line {number} has no field {field!a} ({option})")
    found = cast("dict[str, object]", value)[field]
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise CodecError(f"line {number}: field {field!a} must be text or a whole number ({option})")
    return str(found)


def _print(topic: str, sent: _Sent, *, json: bool) -> None:
    if json:
        last = sent.last
        position = None if last is None else {"stream": last.source, "sequence": last.value}
        print_document(
            {"topic": topic, "published": sent.published, "duplicates": sent.duplicates, "position": position}
        )
        return
    was = "was" if sent.duplicates == 1 else "were"
    again = f", {sent.duplicates:,} {was} there before" if sent.duplicates else ""
    where = f", the last at {cell(str(sent.last))}" if sent.last is not None else ""
    print(f"published {sent.published:,} to {cell(topic)}{again}{where}")
