"""The peers of the embedded engine, each asked the same: publish so many, take and acknowledge so many."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

BODY = b"x" * 100


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def nats_server(folder, *, always):
    """A server from its wheel; `always`: it syncs before it answers, as headrace does."""
    port, program = (
        free_port(),
        shutil.which("nats-server") or str(Path(shutil.sys.executable).with_name("nats-server")),
    )
    store = Path(tempfile.mkdtemp(dir=folder, prefix="nats-"))
    sync = "sync_interval: always" if always else ""
    (store / "conf").write_text(f'port: {port}\nhost: "127.0.0.1"\njetstream {{ store_dir: "{store}", {sync} }}\n')
    process = subprocess.Popen([program, "-c", str(store / "conf")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            if time.monotonic() > deadline:
                raise RuntimeError("nats-server does not start")
            time.sleep(0.02)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(store)


async def nats_publish(url, count, tasks):
    """`tasks` tasks, each awaits its answer; messages per second."""
    import nats

    connection = await nats.connect(url)
    stream = connection.jetstream()
    await stream.add_stream(name="S", subjects=["s.>"])

    async def task():
        for _ in range(count // tasks):
            await stream.publish("s.a", BODY)

    start = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(tasks)))
    took = time.perf_counter() - start
    await connection.close()
    return count / took


async def nats_consume(url, count):
    """Fetch by hundreds, acknowledge each; messages per second."""
    import nats

    connection = await nats.connect(url)
    stream = connection.jetstream()
    subscription = await stream.pull_subscribe("s.>", "c", stream="S")
    start, got = time.perf_counter(), 0
    while got < count:
        for msg in await subscription.fetch(min(500, count - got)):
            await msg.ack()
            got += 1
    took = time.perf_counter() - start
    await connection.close()
    return count / took


def missing(*modules):
    """Which of these is not installed; said aloud."""
    gone = [module for module in modules if find_spec(module) is None]
    if gone:
        print(f"SKIPPED: {', '.join(gone)} not installed (make bench installs the extra `bench`)")
    return bool(gone)


def sqlite_queues(folder, count):
    """name -> (puts per second, gets with acknowledgement per second) of the SQLite queues that are installed."""
    rates = {}
    if not missing("persistqueue"):
        import persistqueue

        queue = persistqueue.SQLiteAckQueue(str(Path(folder) / "persist"), auto_commit=True, multithreading=False)
        put = rate(count, lambda: queue.put(BODY))
        rates["persist-queue"] = (put, rate(count, lambda: queue.ack(queue.get(block=False))))
        queue.close()
    if not missing("litequeue"):
        import litequeue

        queue = litequeue.LiteQueue(str(Path(folder) / "lite.db"))
        text = BODY.decode()
        put = rate(count, lambda: queue.put(text))
        rates["litequeue"] = (put, rate(count, lambda: queue.done(queue.pop().message_id)))
        queue.conn.close()
    return rates


def rate(count, call):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - start)
