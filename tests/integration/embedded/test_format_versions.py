"""Foreign, damaged and newer files are refused and not touched."""

import asyncio
import sqlite3

import pytest

from headrace import embedded
from headrace.core.errors import StoreError
from headrace.embedded import NotAStoreError, StoreVersionError
from headrace.streams.config import ConsumerConfig, ReplayPolicy, StreamConfig


async def touch(path):
    async with embedded.open(path):
        pass


@pytest.fixture
def store(tmp_path):
    asyncio.run(touch(tmp_path / "store"))
    return tmp_path / "store"


@pytest.mark.parametrize("name", ["streams.db", "consumers.db"])
def test_another_format(store, name):
    with sqlite3.connect(store / name) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (store / name).read_bytes()
    with pytest.raises(StoreVersionError) as error:
        asyncio.run(touch(store))
    assert (error.value.found, error.value.supported) == (99, 1)
    assert (store / name).read_bytes() == before


@pytest.mark.parametrize("name", ["streams.db", "consumers.db"])
@pytest.mark.parametrize("content", [b"hello" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_foreign_files(store, name, content):
    for path in store.glob(f"{name}*"):
        path.unlink()
    (store / name).write_bytes(content)
    (store / name).chmod(0o600)
    with pytest.raises(StoreError):
        asyncio.run(touch(store))
    assert (store / name).read_bytes() == content


def test_somebody_elses_database(store):
    for path in store.glob("streams.db*"):
        path.unlink()
    connection = sqlite3.connect(store / "streams.db")
    connection.execute("CREATE TABLE mine(x)")
    connection.close()
    (store / "streams.db").chmod(0o600)
    with pytest.raises(NotAStoreError):
        asyncio.run(touch(store))


def test_a_lost_consumers_file_is_never_replaced(store):
    for path in store.glob("consumers.db*"):
        path.unlink()
    with pytest.raises(StoreError, match="missing"):
        asyncio.run(touch(store))
    assert not (store / "consumers.db").exists()


def test_a_store_from_before_replays_gets_their_table(store):
    with sqlite3.connect(store / "consumers.db") as connection:
        connection.execute("DROP TABLE replay")
    connection.close()

    async def replayed():
        async with embedded.open(store) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S")
            config = ConsumerConfig(durable="c", replay_policy=ReplayPolicy.ORIGINAL)
            assert len(await (await stream.create_consumer(config)).fetch(1)) == 1
            await stream.delete_consumer("c")

    asyncio.run(replayed())
