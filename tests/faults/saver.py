"""A process that backs up or restores over and over, until it is killed: ``python saver.py backup|restore FROM TO``.

Says ``R`` when it begins and ``D`` after each one that was done.
"""

import asyncio
import itertools
import sys
from pathlib import Path

from headrace import embedded
from headrace.embedded import EmbeddedOptions


def say(word):
    print(word, flush=True)


async def backup(source, target):
    async with embedded.open(source, options=EmbeddedOptions(reserve_bytes=0)) as streams:
        say("R")
        while True:
            await streams.backup(target, overwrite=True)
            say("D")


async def restore(source, target):
    say("R")
    for number in itertools.count():
        await embedded.restore(source, target / str(number))
        say("D")


asyncio.run({"backup": backup, "restore": restore}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3])))
