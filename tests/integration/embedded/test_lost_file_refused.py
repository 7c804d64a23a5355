"""A store that lost one of its files is refused: begun anew, its sequences would fall below what its consumers know."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import StoreError
from headrace.streams.config import ConsumerConfig, StreamConfig


@pytest.fixture
def store(tmp_path):
    async def make():
        async with embedded.open(tmp_path / "data") as streams:
            jobs = await streams.create_stream(StreamConfig(name="JOBS", subjects=["jobs"]))
            await streams.publish("jobs", b"1")
            await jobs.create_or_update_consumer(ConsumerConfig(durable="c"))

    asyncio.run(make())
    return tmp_path / "data"


@pytest.mark.parametrize("lost", ["streams.db", "consumers.db"])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_lost_file_is_named_and_nothing_is_made(store, lost, how):
    async def reopen():
        async with embedded.open(store):
            pass

    for name in (f"{lost}-wal", f"{lost}-shm"):
        (store / name).unlink(missing_ok=True)
    (store / lost).unlink()
    if how == "empty":
        (store / lost).touch(mode=0o600)
    said = rf"{lost} is missing beside .*restore a backup" if how == "missing" else "is a file of something else"
    with pytest.raises(StoreError, match=said):
        asyncio.run(reopen())
    assert (store / lost).exists() == (how == "empty")
    if how == "empty":
        assert (store / lost).stat().st_size == 0
