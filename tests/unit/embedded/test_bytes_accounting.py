"""Bytes are counted as the server does."""

from headrace import embedded
from headrace.streams.config import StorageType, StreamConfig
from headrace.testing.virtual import virtual_time


async def size_after(streams, name):
    return (await (await streams.stream(name)).info()).state.bytes


@virtual_time
async def test_file_and_memory():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="F", subjects=["f.x"]))
        await streams.create_stream(StreamConfig(name="M", subjects=["m.x"], storage=StorageType.MEMORY))
        block = len("NATS/1.0\r\nA: b\r\n\r\n")
        await streams.publish("f.x", b"12345")
        assert await size_after(streams, "F") == 30 + 3 + 5
        await streams.publish("f.x", b"12345", headers={"A": "b"})
        assert await size_after(streams, "F") == 2 * (30 + 3 + 5) + 4 + block
        await streams.publish("m.x", b"12345", headers={"A": "b"})
        assert await size_after(streams, "M") == 16 + 3 + 5 + block
        stream = await streams.stream("F")
        await stream.delete_msg(1)
        assert await size_after(streams, "F") == 30 + 3 + 5 + 4 + block
        await stream.delete_msg(2)
        assert await size_after(streams, "F") == 0
