"""Between a `Message` and what stands in a stream. The only place that knows these headers (docs/wire.md).

``Nats-Msg-Id: <id>@<topic>``, ``Headrace-Key``, ``Headrace-Time`` stand first in that order, then the user's headers,
then ``Headrace-Packed``. So reading what we wrote is one ``split``, and the rest stays a block that nobody has parsed.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from headrace.core.errors import ConfigError
from headrace.core.headers import NO_HEADERS, Headers, Value
from headrace.core.message import Message
from headrace.core.packing import PACKED, pack, unpack
from headrace.streams.names import MSG_ID, WireBlock
from headrace.streams.options import StreamMessage

__all__ = ["KEY", "TIME", "decode", "encode", "msg_id_of"]

KEY = "Headrace-Key"
TIME = "Headrace-Time"

_OURS = frozenset({"headrace-id", "headrace-key", "headrace-time", "headrace-packed", "headrace-body"})
_ID_START = f"{MSG_ID}: ".encode()
_KEY_START = f"{KEY}: ".encode()
_TIME_START = f"{TIME}: ".encode()
_KEYLESS = _ID_START + b"%b\r\n" + _TIME_START + b"%d\r\n"
_KEYED = _ID_START + b"%b\r\n" + _KEY_START + b"%b\r\n" + _TIME_START + b"%d\r\n"
_ID_AT = len(_ID_START)
_KEY_AT = len(_KEY_START)
_TIME_AT = len(_TIME_START)
_KEY_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_KEY_PLAIN = re.compile(rb"[!-$&-~]*\Z")
_NAME = re.compile(r"[!-9;-~]+\Z")
_BAD_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_NUMBER = re.compile(rb"-?[0-9]{1,19}\Z")  # what 64 bits hold: a foreign publisher's 10**30 is no time
_PACKED_LOWER = PACKED.lower().encode()


def msg_id_of(message_id: str, topic: str) -> str:
    """The id that a stream remembers: its window spans all its subjects, hence the topic in it."""
    return f"{message_id}@{topic}"


def encode(message: Message) -> StreamMessage:
    """What to publish. ``ConfigError`` for a header whose name belongs to the engine or to this wire."""
    topic, key = message.topic, message.key
    msg_id = f"{message.id}@{topic}"  # msg_id_of(), written out
    if key is None:
        block = _KEYLESS % (msg_id.encode(), message.time_ns)
    else:
        block = _KEYED % (msg_id.encode(), key if key.isalnum() else _escaped(key), message.time_ns)
    if message.headers is not NO_HEADERS:
        block += _user_block(message.headers)
    return StreamMessage(topic, message.body, WireBlock(block), msg_id, key)


def decode(topic: str, body: bytes, block: bytes, *, stream: str, sequence: int, stored_ns: int) -> Message:
    """The message that stands there. What a foreign publisher left out is made of stream, sequence, stored time."""
    first, _, rest = block.partition(b"\r\n")
    second, _, rest = rest.partition(b"\r\n")
    key = None
    if second.startswith(_KEY_START):
        key = second[_KEY_AT:]
        if b"%" in key:
            key = unquote_to_bytes(key)
        second, _, rest = rest.partition(b"\r\n")
    number = second[_TIME_AT:]
    ours = first.startswith(_ID_START) and second.startswith(_TIME_START) and number.isdigit() and len(number) < 20
    if not ours or (rest and _is_mixed(rest)):
        return _decode_any(topic, body, block, stream=stream, sequence=sequence, stored_ns=stored_ns)
    try:
        message_id = first[_ID_AT:].decode().removesuffix("@" + topic)
    except UnicodeDecodeError:
        return _decode_any(topic, body, block, stream=stream, sequence=sequence, stored_ns=stored_ns)
    headers = Headers.from_block(rest) if rest else NO_HEADERS
    return Message(topic=topic, body=body, key=key, headers=headers, id=message_id, time_ns=int(number))


def _is_mixed(rest: bytes) -> bool:
    """Whether headers of the engine or of this wire stand among the user's."""
    lowered = rest.lower()
    return _PACKED_LOWER in lowered or b"nats-" in lowered or b"headrace-" in lowered


def _decode_any(topic: str, body: bytes, block: bytes, *, stream: str, sequence: int, stored_ns: int) -> Message:
    """Any order, any publisher. Only the first of each of our headers counts; all engine headers are taken out."""
    found: dict[str, bytes] = {}
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            # One blank is the wire's; further ones are an id's own.
            found.setdefault(name.decode("utf-8", "surrogateescape").lower(), value[value.startswith(b" ") :])
    time_ns = _number(found.get("headrace-time", b"").strip())
    raw_key = found.get("headrace-key")
    raw_id = found.get("nats-msg-id")
    message_id = "" if raw_id is None else raw_id.decode("utf-8", "replace").removesuffix(f"@{topic}")
    pairs = [
        pair
        for pair in Headers.from_block(block).items()
        if pair[0][:5].lower() != "nats-" and pair[0].lower() not in _READ
    ]
    pairs = list(unpack(pairs))
    return Message(
        topic=topic,
        body=body,
        key=None if raw_key is None else unquote_to_bytes(raw_key.strip()),
        headers=Headers.trusted(pairs) if pairs else NO_HEADERS,
        id=message_id or f"{stream}:{sequence}",
        time_ns=stored_ns if time_ns is None else time_ns,
    )


_READ = frozenset({"headrace-key", "headrace-time"})


def _number(raw: bytes) -> int | None:
    return int(raw) if _NUMBER.match(raw) else None


def _escaped(key: bytes) -> bytes:
    return key if _KEY_PLAIN.match(key) else quote_from_bytes(key, safe=_KEY_SAFE).encode()


def _user_block(headers: Headers) -> bytes:
    pairs = headers.items()
    for name, _ in pairs:
        lowered = name.lower()
        if lowered.startswith("nats-") or lowered in _OURS:
            raise ConfigError(f"header {name}: this name belongs to the engine or to headrace")
    return Headers.trusted(pack(pairs, _fits)).to_block()


def _fits(name: str, value: Value) -> bool:
    """Whether the header block carries it as it is: a foreign name or value must never become a line of its own."""
    if not isinstance(value, str) or not _NAME.match(name):
        return False
    return value.isalnum() or (not _BAD_VALUE.search(value) and value.strip(" \t") == value)
