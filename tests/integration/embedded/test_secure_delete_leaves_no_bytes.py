"""After a secure deletion no file of the directory holds the payload."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import UnsupportedError
from headrace.streams.config import StreamConfig


def scan(directory, secret):
    return [path.name for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.mark.parametrize("size", [20, 20_000])
def test_no_bytes_are_left(tmp_path, size):
    store = tmp_path / "store"

    async def run():
        async with embedded.open(store) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            for at in range(30):
                await streams.publish("S", b"secret%03d" % at + b"x" * size)
            await asyncio.sleep(0.5)  # a checkpoint carries them into the file itself
            assert scan(store, b"secret007")
            await stream.secure_delete_msg(8)
            assert scan(store, b"secret007") == []
            assert scan(store, b"secret008")

    asyncio.run(run())


def test_without_it_the_call_is_refused(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "s", options=embedded.EmbeddedOptions(secure_delete=False)) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S")
            with pytest.raises(UnsupportedError):
                await stream.secure_delete_msg(1)

    asyncio.run(run())
