"""A sequence is given out once: not again after purge, deletion of everything, or a kill."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import headrace
from headrace import embedded
from headrace.streams.config import StreamConfig

CHILD = """
import asyncio, sys
import headrace
from headrace import embedded
async def main():
    async with embedded.open(sys.argv[1]) as streams:
        while True:
            print((await streams.publish("S", b"x")).sequence, flush=True)
asyncio.run(main())
"""


def test_after_purge_and_reopening(tmp_path):
    async def run(empty):
        async with embedded.open(tmp_path / "store") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            ack = await streams.publish("S")
            await (stream.purge() if empty else stream.delete_msg(ack.sequence))
            return ack.sequence

    assert [asyncio.run(run(at % 2)) for at in range(4)] == [1, 2, 3, 4]


def test_after_kill(tmp_path):
    async def open_it(call):
        async with embedded.open(tmp_path / "store") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            return await call(streams, stream)

    async def nothing(streams, stream):
        return 0

    asyncio.run(open_it(nothing))
    last = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "store")],
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(headrace.__file__).parents[1])},
        )  # fmt: skip
        seen = [int(child.stdout.readline()) for _ in range(20)]
        child.send_signal(signal.SIGKILL)
        seen += [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        child.stdout.close()
        child.wait()
        assert seen[0] > last
        last = seen[-1]

        async def look(streams, stream, last=last):
            state = (await stream.info()).state
            assert state.last_sequence >= last
            assert state.messages == state.last_sequence
            return state.last_sequence

        last = asyncio.run(open_it(look))
