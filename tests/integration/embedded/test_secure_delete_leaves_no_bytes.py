"""After a secure deletion no file of the directory holds the payload."""

import asyncio

import apsw
import pytest

from headrace import embedded
from headrace.core.errors import UnsupportedError
from headrace.streams.config import StreamConfig


def scan(directory, secret):
    return [path.name for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.mark.parametrize("size", [20, 20_000])
def test_no_bytes_are_left(tmp_path, size):
    store = tmp_path / "store"

    async def run():
        async with embedded.open(store) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            for at in range(30):
                await streams.publish("S", b"secret%03d" % at + b"x" * size)
            await asyncio.sleep(0.5)  # a checkpoint carries them into the file itself
            assert scan(store, b"secret007")
            await stream.secure_delete_msg(8)
            assert scan(store, b"secret007") == []
            assert scan(store, b"secret008")

    asyncio.run(run())


OFF = embedded.EmbeddedOptions(secure_delete=False)
ON = embedded.EmbeddedOptions()


@pytest.mark.parametrize("later", [OFF, ON])
def test_without_it_the_call_is_refused(tmp_path, later):
    """What was not kept clean from the beginning cannot be scrubbed later."""

    async def run():
        async with embedded.open(tmp_path / "s", options=OFF) as streams:
            await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S")
        async with embedded.open(tmp_path / "s", options=later) as streams:
            with pytest.raises(UnsupportedError):
                await (await streams.stream("S")).secure_delete_msg(1)
            assert (await (await streams.stream("S")).info()).state.messages == 1

    asyncio.run(run())


def test_decided_at_creation_for_every_member(tmp_path):
    store = tmp_path / "s"

    async def run():
        async with embedded.open(store, options=ON) as one, embedded.open(store, options=OFF) as two:
            stream = await one.create_stream(StreamConfig(name="S", max_messages=20))
            for at in range(60):
                await two.publish("S", b"secret%03d" % at + b"x" * 500)
            await (await two.stream("S")).delete_msg(50)
            await stream.purge()
            await one.publish("S", b"last")
            await stream.secure_delete_msg(61)
            assert scan(store, b"secret0") == []

    asyncio.run(run())


def test_a_reader_is_waited_for(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "s") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"secret1")
            reader = apsw.Connection(str(tmp_path / "s" / "streams.db"), flags=apsw.SQLITE_OPEN_READONLY)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM stream").fetchall()
            deleting = asyncio.create_task(stream.secure_delete_msg(1))
            while (await stream.info()).state.messages:
                await asyncio.sleep(0.01)
            assert not deleting.done()
            reader.close()
            await deleting
            assert scan(tmp_path / "s", b"secret1") == []

    asyncio.run(run())


def test_a_checkpoint_is_waited_for(tmp_path):
    """SQLite's busy handler is not asked when another checkpoint runs: the call must not fail for that."""

    async def run():
        async with embedded.open(tmp_path / "s") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            going = True

            async def checkpoint():
                while going:
                    await streams._room.maintenance._checkpoint_both()

            async def load():
                while going:
                    await streams.publish("S", b"x" * 10_000)

            others = [asyncio.create_task(each) for each in (checkpoint(), load())]
            for _ in range(30):
                ack = await streams.publish("S", b"secret")
                await stream.secure_delete_msg(ack.sequence)
            going = False
            await asyncio.gather(*others)

    asyncio.run(run())
