"""In a forked child every handle is dead, and closing it touches nothing of the parent."""

import asyncio
import os
import warnings

from headrace import embedded
from headrace.core.errors import UsageError
from headrace.streams.config import StreamConfig


def test_fork(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"before")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                child = os.fork()
            if child == 0:
                os._exit(in_child(streams))
            _, status = os.waitpid(child, 0)
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
