"""A read-only view beside a running service."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import UnsupportedError
from headrace.streams.config import StreamConfig, StreamMessage


def test_read_only(tmp_path):
    async def run():
        options = embedded.EmbeddedOptions(read_only=True)
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="S"))
            await streams.publish_many([StreamMessage("S", b"x")] * 10)
            async with embedded.open(tmp_path / "store", options=options) as view:
                stream = await view.stream("S")
                assert (await stream.info()).state.messages == 10
                await streams.publish("S", b"y")
                assert (await stream.get_msg(11)).data == b"y"
                assert len(await stream.read()) == 11
                assert [info.config.name async for info in view.list_streams()] == ["S"]
                assert (await view.verify()).ok
                assert (await view.backup(tmp_path / "copy")).messages == 11
                for refused in (
                    view.publish("S"),
                    view.publish_many([]),
                    view.create_stream(StreamConfig(name="T")),
                    view.delete_stream("S"),
                    stream.purge(),
                    stream.delete_msg(1),
                ):
                    with pytest.raises(UnsupportedError, match="read_only"):
                        await refused

    asyncio.run(run())
