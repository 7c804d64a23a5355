"""Directories 0700, files 0600, whatever the umask."""

import asyncio
import os
import stat

from headrace import embedded
from headrace.streams.config import StreamConfig


def test_modes_with_umask_zero(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"x")
            await streams.backup(tmp_path / "copy.hrbak")
            check(tmp_path / "store")
        check(tmp_path / "store")
        await embedded.restore(tmp_path / "copy.hrbak", tmp_path / "restored")

    old = os.umask(0)
    try:
        asyncio.run(run())
    finally:
        os.umask(old)
    check(tmp_path / "restored")
    assert stat.S_IMODE((tmp_path / "copy.hrbak").stat().st_mode) == 0o600


def check(directory):
    for path in (directory, *directory.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == wanted, path
