"""Names never become paths or SQL."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError
from headrace.streams.config import StreamConfig

PLAIN = ["CON", "stream", "'; DROP TABLE stream; --"[:2], 'x"y', "a;b", "caſe", "Case", "case", "é" * 100]
REFUSED = ["", "../x", "a/b", "a\\b", "a b", "a\nb", "a\x00b", "a.b", "*", ">", "x" * 256]


def test_hostile_names(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            before = {path.name for path in tmp_path.rglob("*")}
            for name in PLAIN:
                stream = await streams.create_stream(StreamConfig(name=name))
                await streams.publish(name, name.encode())
                assert (await stream.get_msg(1)).data == name.encode()
            for name in REFUSED:
                with pytest.raises(ConfigError):
                    await streams.stream(name)
                with pytest.raises(ConfigError):
                    StreamConfig(name=name)
            assert sorted([name async for name in streams.stream_names()]) == sorted(PLAIN)
            assert {path.name for path in tmp_path.rglob("*")} == before

    asyncio.run(run())
