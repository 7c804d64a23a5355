"""In a forked child every handle is dead, and closing it touches nothing of the parent."""

import asyncio
import os
import signal
import warnings

from headrace import embedded
from headrace.core.errors import UsageError
from headrace.streams.config import StreamConfig
from headrace.streams.session import SessionOptions
from tests.children import child, line
from tests.integration.embedded.test_several_processes import MEMBER, publish, store


def test_fork(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"before")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                forked = os.fork()
            if forked == 0:
                os._exit(in_child(streams))
            _, status = os.waitpid(forked, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert (await streams.publish("S", b"after")).sequence == 2

    asyncio.run(run())


def in_child(streams):
    """A loop of its own cannot be had inside the parent's: the coroutines are driven by hand."""
    for call, wanted in ((streams.publish("S"), UsageError), (streams.aclose(), StopIteration)):
        try:
            call.send(None)
        except wanted:
            continue
        except BaseException:
            return 1
        return 2
    return 0


def test_a_child_does_not_keep_a_killed_member_alive(tmp_path):
    """Locks belong to open files, of which a child has copies: what its parent held would wait for the ack wait."""

    async def run():
        async with store(tmp_path / "d", ack_wait=600) as (streams, stream):
            await publish(streams, 4)
            async with child(MEMBER, tmp_path / "d", "hold", "fork") as holder:
                assert await line(holder) == ["holds", "1", "2", "3"]
                orphan = int((await line(holder))[1])
                try:
                    await asyncio.sleep(0.3)
                    holder.kill()
                    await holder.wait()
                    session = (await stream.consumer("c")).session(SessionOptions())
                    assert [each.metadata.sequence.stream for each in await session.pull(4, 1)] == [1, 2, 3, 4]
                finally:
                    os.kill(orphan, signal.SIGKILL)

    asyncio.run(run())
