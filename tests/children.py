"""Programs beside a test: started with this source tree, never left behind."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import headrace

SOURCE = str(Path(headrace.__file__).parents[1])


@asynccontextmanager
async def child(program, *arguments):
    """A Python program with pipes to its input and from its output; killed where the block ends before it does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), *map(str, arguments),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": SOURCE},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        process.stdin.close()
        await process.wait()
        await asyncio.sleep(0.05)  # the transport closes its pipes in the turns after


async def line(process):
    """The words of its next line."""
    return (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()
