"""A backup or a restore of some streams: those, with their consumers and positions, and nothing of the others."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions

SECRET = b"only in the other stream"


async def filled(streams):
    for name, body in (("A", b"of a"), ("B", SECRET)):
        stream = await streams.create_stream(StreamConfig(name=name))
        consumer = await stream.create_consumer(ConsumerConfig(durable=f"c{name}"))
        for _ in range(5):
            await streams.publish(name, body)
        session = consumer.session(SessionOptions())
        for msg in await session.pull(2, 1):
            await msg.double_ack()
        await session.aclose()


async def examine(path):
    """What stands in a restored store: stream -> its consumers' floors; and that it goes on where it was."""
    found = {}
    async with embedded.open(path) as streams:
        async for info in streams.list_streams():
            stream = await streams.stream(info.config.name)
            found[info.config.name] = [
                (each.name, each.ack_floor.stream, each.num_pending) async for each in stream.list_consumers()
            ]
            assert (await streams.publish(info.config.name)).sequence == 6
        assert (await streams.verify()).ok
    return found


def bytes_below(path):
    return b"".join(each.read_bytes() for each in path.rglob("*") if each.is_file())


@pytest.mark.parametrize("where", ["directory", ":memory:"])
def test_partial_backup(tmp_path, where):
    async def run():
        async with embedded.open(where if where == ":memory:" else tmp_path / "store") as streams:
            await filled(streams)
            whole = await streams.backup(tmp_path / "whole")
            part = await streams.backup(tmp_path / "part", streams=["A"])
            with pytest.raises(ConfigError, match="'C'"):
                await streams.backup(tmp_path / "none", streams=["A", "C"])
        assert (whole.streams, whole.messages) == (("A", "B"), 10)
        assert (part.streams, part.messages) == (("A",), 5)
        assert SECRET in (tmp_path / "whole").read_bytes()
        assert SECRET not in (tmp_path / "part").read_bytes()
        await embedded.restore(tmp_path / "part", tmp_path / "a")
        assert await examine(tmp_path / "a") == {"A": [("cA", 2, 3)]}
        report = await embedded.restore(tmp_path / "whole", tmp_path / "b", streams=["B"])
        assert (report.streams, report.messages) == (("B",), 5)
        assert await examine(tmp_path / "b") == {"B": [("cB", 2, 3)]}
        assert b"of a" not in bytes_below(tmp_path / "b")
        with pytest.raises(ConfigError, match="'C'"):
            await embedded.restore(tmp_path / "whole", tmp_path / "c", streams=["C"])
        assert {path.name for path in tmp_path.iterdir()} - {"store"} == {"whole", "part", "a", "b"}

    asyncio.run(run())
