"""Annotations -> what a handler is given."""

import functools
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest

from headrace.core.codec import TextCodec
from headrace.core.delivery import Delivery
from headrace.core.errors import CodecError, ConfigError
from headrace.core.message import Message
from headrace.flow.handlers import bind, codec_for


@dataclass
class Order:
    id: int
    tags: list[str] | None = None


class Struct(msgspec.Struct):
    id: int


class Typed(TypedDict):
    id: int


class Unknown:
    pass


class Nested(msgspec.Struct):
    inner: list[Unknown]


def delivery_of(body: bytes) -> Delivery:
    return Delivery(Message(topic="t", body=body), 1, None, None)


async def run(handler, body, codec=None):
    return await bind(handler, codec).call(delivery_of(body))


@pytest.mark.parametrize(
    ("annotation", "body", "value"),
    [
        (bytes, b"\xff", b"\xff"),
        (str, "ä".encode(), "ä"),
        (dict[str, int], b'{"a":1}', {"a": 1}),
        (dict, b'{"a":1}', {"a": 1}),
        (list, b"[1]", [1]),
        (Order, b'{"id":1}', Order(1)),
        (Struct, b'{"id":1}', Struct(1)),
        (Typed, b'{"id":1}', {"id": 1}),
        (Order | None, b"null", None),
        (Any, b"1", 1),
    ],
)
def test_codecs(annotation, body, value):
    codec = codec_for(annotation)
    assert codec.decode(body) == value
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("annotation", [Unknown, Nested, list[Unknown], object, "nonsense", 7, complex])
def test_unknown_annotations_are_refused(annotation):
    with pytest.raises(ConfigError):
        codec_for(annotation)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"id":' + b"9" * 100_000 + b"}", b'{"id":"\xff"}', b"\xef\xbb\xbf{}", b'{"id":"x"}', b""]
)
def test_hostile_bodies_are_codec_errors_without_the_body(body):
    with pytest.raises(CodecError) as caught:
        codec_for(Order).decode(body)
    assert len(str(caught.value)) < 300


def test_pydantic_models_by_their_own_json():
    import pydantic

    class Model(pydantic.BaseModel):
        id: int

    codec = codec_for(Model)
    assert codec.decode(codec.encode(Model(id=3))) == Model(id=3)
    with pytest.raises(CodecError, match="int_parsing") as caught:
        codec.decode(b'{"id":"secret"}')
    assert "secret" not in str(caught.value)


def test_what_is_given():
    import asyncio

    seen = []

    async def plain(delivery):
        seen.append(type(delivery))

    async def message(message: Message):
        seen.append(type(message))

    async def both(order: Order, delivery: Delivery):
        seen.append((order, type(delivery)))

    async def optional(text: str, more: int = 3):
        seen.append((text, more))

    class Callable:
        async def __call__(self, text: str, message: Message):
            seen.append((text, message.topic))

    async def main():
        await run(plain, b"")
        await run(message, b"")
        await run(both, b'{"id":1}')
        await run(optional, b"x")
        await run(Callable(), b"x")
        await run(functools.partial(both, delivery=None), b'{"id":2}')
        await run(plain, b"x", TextCodec())

    asyncio.run(main())
    assert seen[:5] == [Delivery, Message, (Order(1), Delivery), ("x", 3), ("x", "t")]
    assert seen[6] is str


def test_what_nobody_could_give():
    async def three(a: bytes, b: Delivery, c: int):
        pass

    async def second(a: bytes, b: int):
        pass

    async def named(a: bytes, *, b: int):
        pass

    async def unresolved(a: "Nowhere"):  # noqa: F821
        pass

    async def none():
        pass

    for handler in (three, second, named, unresolved, none, "text"):
        with pytest.raises(ConfigError):
            bind(handler)
    assert not bind(unresolved, TextCodec()).sync
