"""Backup while it is in use, restore elsewhere."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError, StoreError
from headrace.streams.config import StreamConfig


def test_under_load(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="A"))
            await streams.create_stream(StreamConfig(name="B"))
            running = True

            async def load():
                while running:
                    await streams.publish("A", b"x" * 100)

            tasks = [asyncio.create_task(load()) for _ in range(10)]
            await asyncio.sleep(0.1)
            await streams.publish("B", b"b")
            report = await streams.backup(tmp_path / "all.hrbak")
            with pytest.raises(ConfigError):
                await streams.backup(tmp_path / "all.hrbak")
            part = await streams.backup(tmp_path / "b.hrbak", streams=["B"])
            running = False
            await asyncio.gather(*tasks)
            assert set(report.streams) == {"A", "B"}
            assert (part.streams, part.messages) == (("B",), 1)
        assert await embedded.restore(tmp_path / "all.hrbak", tmp_path / "copy") == report
        assert (await embedded.verify(tmp_path / "copy")).messages == report.messages
        async with embedded.open(tmp_path / "copy") as copy:
            last = (await (await copy.stream("A")).info()).state.last_sequence
            assert (await copy.publish("A")).sequence == last + 1
        with pytest.raises(ConfigError, match="empty"):
            await embedded.restore(tmp_path / "all.hrbak", tmp_path / "copy")
        await embedded.restore(tmp_path / "b.hrbak", tmp_path / "only")
        assert (await embedded.verify(tmp_path / "only")).messages == 1

    asyncio.run(run())


def test_partial_and_manipulated(tmp_path):
    async def run():
        async with embedded.open(":memory:") as streams:
            await streams.create_stream(StreamConfig(name="A"))
            await streams.publish("A", b"payload")
            await streams.backup(tmp_path / "whole")
        whole = (tmp_path / "whole").read_bytes()
        middle = len(whole) // 2
        for number, bad in enumerate(
            (whole[:10], whole[:middle], whole[:-1], whole + b"x", whole.replace(b"payload", b"PAYLOAD"), b"", b"junk")
        ):
            file = tmp_path / f"bad{number}"
            file.write_bytes(bad)
            with pytest.raises(StoreError):
                await embedded.restore(file, tmp_path / "target")
            assert not (tmp_path / "target").exists()
        await embedded.restore(tmp_path / "whole", tmp_path / "target")
        async with embedded.open(tmp_path / "target") as copy:
            assert (await (await copy.stream("A")).get_msg(1)).data == b"payload"

    asyncio.run(run())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
