"""OffsetStore: one contract for both; the one on disk beside other processes, killed, damaged, full, closed."""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import apsw
import pytest

from headrace.core.errors import ClosedError, ConfigError, StoreError, UsageError
from headrace.kafka.stores import DirectoryOffsetStore, MemoryOffsetStore, OffsetStore
from tests.children import SOURCE, child, line

ROUNDS = 8
SAVES_FOR_EVER = """
import asyncio, sys
from headrace.kafka.stores import DirectoryOffsetStore

async def main():
    store = DirectoryOffsetStore(sys.argv[1])
    offset = await store.load("orders", int(sys.argv[2])) or 0
    while True:
        offset += 1
        await store.save("orders", int(sys.argv[2]), offset)
        print(offset, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def opened(path, **given):
    store = DirectoryOffsetStore(path, **given)
    try:
        yield store
    finally:
        await store.aclose()


def in_loop(test):
    asyncio.run(test)


@pytest.fixture(params=["memory", "directory"])
def make(request, tmp_path):
    """A function that gives the same store again, as a new run would get it."""
    if request.param == "directory":
        return lambda: DirectoryOffsetStore(tmp_path / "state")
    store = MemoryOffsetStore()
    return lambda: store


def test_store_contract(make):
    async def main():
        first = make()
        assert isinstance(first, OffsetStore)
        assert await first.load("orders", 0) is None
        for topic, partition, offset in (("orders", 0, 3), ("orders", 1, 0), ("Orders", 0, 2**63 - 1), ("o'é", 7, 1)):
            await first.save(topic, partition, offset)
            assert await first.load(topic, partition) == offset
        assert await first.load("orders", 0) == 3
        assert await first.load("orders", 2) is None
        await first.save("orders", 0, 6)
        await first.save("orders", 0, 6)
        await close(first)
        again = make()
        assert [await again.load("orders", number) for number in (0, 1, 2)] == [6, 0, None]
        await asyncio.gather(*(again.save("many", number, number) for number in range(20)))
        assert await asyncio.gather(*(again.load("many", number) for number in range(20))) == list(range(20))
        await close(again)

    in_loop(main())


async def close(store):
    if isinstance(store, DirectoryOffsetStore):
        await store.aclose()


def test_directory_store_names_keep_applications_apart(tmp_path):
    async def main():
        async with opened(tmp_path) as default, opened(tmp_path, name="other") as other:
            await default.save("orders", 0, 3)
            assert await other.load("orders", 0) is None
            await other.save("orders", 0, 9)
            assert await default.load("orders", 0) == 3
        async with opened(tmp_path, name="other") as other:
            assert await other.load("orders", 0) == 9

    in_loop(main())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kafka-offsets.db", "kafka-offsets.lock"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"path": ""}, "path"), ({"path": None}, "path"), ({"path": 5}, "path"), ({"path": "x", "name": ""}, "name"),
        ({"path": "x", "name": None}, "name"), ({"path": "x", "name": "a\nb"}, "name"),
        ({"path": "x", "name": "x" * 256}, "name"),
    ],
)  # fmt: skip
def test_directory_store_wrong_values_are_named(given, named):
    with pytest.raises(ConfigError, match=named):
        DirectoryOffsetStore(**given)


def test_directory_store_settings(tmp_path):
    async def main():
        async with opened(tmp_path / "a" / "b") as store:
            await store.save("orders", 0, 1)
            pragma = store._connection.pragma
            assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 1)

    in_loop(main())
    assert (tmp_path / "a" / "b" / "kafka-offsets.db").stat().st_mode & 0o777 == 0o600


def test_directory_store_two_processes(tmp_path):
    """Both make the file at the same time, write at the same time, and each finds its own."""

    async def main():
        program = tmp_path / "saves.py"
        program.write_text(SAVES_FOR_EVER)
        state = tmp_path / "state"
        async with child(program, state, 0) as one, child(program, state, 1) as two, opened(state) as here:
            last = [0, 0]
            for offset in range(1, 101):
                await here.save("orders", 2, offset)
                last = [int((await line(each))[0]) for each in (one, two)]
                assert await here.load("orders", 0) >= last[0]
                assert await here.load("orders", 1) >= last[1]
            assert last == [100, 100]
            assert await here.load("orders", 2) == 100

    in_loop(main())


def test_directory_store_kill9(tmp_path):
    """What `save` has returned for is there after kill -9, whenever it comes."""

    async def main():
        program = tmp_path / "saves.py"
        program.write_text(SAVES_FOR_EVER)
        state = tmp_path / "state"
        said = 0
        for number in range(ROUNDS):
            async with child(program, state, 0) as process:
                with suppress(asyncio.IncompleteReadError):
                    for _ in range(1 + number % 5):
                        said = int((await line(process))[0])
                process.kill()
                rest = (await process.stdout.read()).split()
                said = int(rest[-1]) if rest and rest[-1].isdigit() else said
            async with opened(state) as store:
                assert said <= await store.load("orders", 0) <= said + 1
        assert said > ROUNDS

    in_loop(main())


async def fill(path):
    async with opened(path) as store:
        for number in range(300):
            await store.save("orders" * 20, number, number)
    return path / "kafka-offsets.db"


def garbage(file):
    file.write_bytes(b"no database" * 1000)


def emptied(file):
    file.write_bytes(b"")


def cut(file):
    file.write_bytes(file.read_bytes()[:5000])


def damaged(file):
    pages = bytearray(file.read_bytes())
    pages[4096 + 100 : 8192] = os.urandom(4096 - 100)
    file.write_bytes(pages)


def foreign(file):
    file.unlink()
    connection = apsw.Connection(str(file))
    connection.execute("CREATE TABLE offsets(a)")
    connection.close()


def newer(file):
    connection = apsw.Connection(str(file))
    connection.execute("PRAGMA user_version=2")
    connection.close()


@pytest.mark.parametrize("harm", [garbage, emptied, cut, damaged, foreign, newer])
def test_directory_store_corrupt_file(tmp_path, harm):
    """Terminal, both ways, and the file is left as it was: it is never taken for an empty store."""

    async def main():
        file = await fill(tmp_path)
        harm(file)
        before = file.read_bytes()
        async with opened(tmp_path) as store:
            for _ in range(2):
                for call in (store.load("orders", 0), store.save("orders", 0, 1)):
                    with pytest.raises(StoreError, match=r"kafka-offsets\.db") as caught:
                        await call
                    assert not caught.value.retryable
                    assert isinstance(caught.value.__cause__, apsw.Error)
        assert file.read_bytes() == before

    in_loop(main())


def test_directory_store_damage_while_it_is_open(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            await store.save("orders", 0, 1)
            store._connection.execute("DROP TABLE offsets")
            with pytest.raises(StoreError) as caught:
                await store.load("orders", 0)
            assert not caught.value.retryable

    in_loop(main())


@pytest.mark.parametrize("pragma", ["query_only=1", "max_page_count=1"])
def test_directory_store_that_cannot_write_now(tmp_path, pragma):
    """Read-only and full are retryable; the old value stands, and the next call works once that is over."""

    async def main():
        async with opened(tmp_path) as store:
            await store.save("orders", 0, 1)
            store._connection.execute(f"PRAGMA {pragma}")
            with pytest.raises(StoreError) as caught:
                for number in range(1000):
                    await store.save("orders" * 50, number, 2)
            assert caught.value.retryable
            assert await store.load("orders", 0) == 1
            await store.save("orders", 0, 2)
            assert await store.load("orders", 0) == 2

    in_loop(main())


def test_directory_store_on_a_full_disk(tmp_path):
    """The kernel refuses to let files grow: a real failed write, and after it a real recovery."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": SOURCE},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["StoreError True", "1", "5000"], done.stderr


FULL = """
import asyncio, resource, signal, sys
from headrace.core.errors import StoreError
from headrace.kafka.stores import DirectoryOffsetStore

async def main():
    store = DirectoryOffsetStore(sys.argv[1])
    await store.save("orders", 0, 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for number in range(1000):
            await store.save("orders" * 50, number, 2)
    except StoreError as error:
        print(type(error).__name__, error.retryable)
    print(await store.load("orders", 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.save("orders", 0, 5000)
    print(await store.load("orders", 0))
    await store.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["file", "below"])
def test_directory_store_where_no_directory_is(tmp_path, kind):
    async def main():
        (tmp_path / "file").touch()
        async with opened(tmp_path / "file" / ("state" if kind == "below" else "")) as store:
            with pytest.raises(StoreError) as caught:
                await store.load("orders", 0)
            assert not caught.value.retryable

    in_loop(main())


def test_directory_store_whose_file_is_removed(tmp_path):
    """Somebody resets it: nothing is written to a file without a name, and an old log is not carried over."""

    async def main():
        async with opened(tmp_path) as store:
            await store.save("orders", 0, 5)
            log = (tmp_path / "kafka-offsets.db-wal").read_bytes()
            (tmp_path / "kafka-offsets.db").unlink()
            await store.save("orders", 1, 6)
            assert [await store.load("orders", number) for number in (0, 1)] == [None, 6]
        (tmp_path / "kafka-offsets.db").unlink()
        (tmp_path / "kafka-offsets.db-wal").write_bytes(log)
        async with opened(tmp_path) as store:
            assert await store.load("orders", 0) is None

    in_loop(main())


def test_directory_store_closed(tmp_path):
    async def main():
        store = DirectoryOffsetStore(tmp_path)
        await store.save("orders", 0, 1)
        await store.aclose()
        await store.aclose()
        for call in (store.load("orders", 0), store.save("orders", 0, 2)):
            with pytest.raises(ClosedError):
                await call
        never = DirectoryOffsetStore(tmp_path / "never")
        await never.aclose()
        assert not (tmp_path / "never").exists()

    in_loop(main())


def test_directory_store_cancelled_call_is_done_or_not_but_never_half(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            for offset in range(1, 30):
                task = asyncio.create_task(store.save("orders", 0, offset))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await store.save("orders", 0, 99)
            assert await store.load("orders", 0) == 99

    in_loop(main())


def test_directory_store_of_another_process(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            store._process += 1  # as it looks after a fork
            with pytest.raises(UsageError, match="process"):
                await store.load("orders", 0)

    in_loop(main())
