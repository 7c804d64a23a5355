"""kill -9 during a backup or a restore: the target is absent or complete, and what is left lying about does no harm."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace import embedded
from headrace.embedded import EmbeddedOptions
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.options import StreamMessage
from tests.faults.court import Court

SAVER = str(Path(__file__).with_name("saver.py"))
SOURCE = str(Path(__file__).parents[2] / "src")
SMALL = EmbeddedOptions(reserve_bytes=0)


async def filled(path):
    """A store of two megabytes; its messages."""
    bodies = [b"%d " % number + bytes(2_000) for number in range(1_000)]
    async with embedded.open(path, options=SMALL) as streams:
        stream = await streams.create_stream(StreamConfig(name="S"))
        await stream.create_consumer(ConsumerConfig(durable="c"))
        acks = await streams.publish_many([StreamMessage("S", body) for body in bodies])
        return {ack.sequence: body.decode() for ack, body in zip(acks, bodies, strict=True)}


def killed(what, source, target, pause, *, one_before):
    """Start it, and kill it after so long, if asked behind the first that was done; whether one was done."""
    with subprocess.Popen(
        [sys.executable, SAVER, what, str(source), str(target)],
        env={**os.environ, "PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "R\n"
            assert not one_before or process.stdout.readline() == "D\n"
            time.sleep(pause)
        finally:
            process.send_signal(signal.SIGKILL)
        return one_before or "D" in process.stdout.read()


def kill_backups(tmp_path, rounds):
    source, folder, chance = tmp_path / "source", tmp_path / "kept", random.Random(3)
    folder.mkdir()
    messages, debris, done = asyncio.run(filled(source)), 0, 0
    with Court() as court:
        for number in range(rounds):
            target = folder / f"{number}.hrbak"
            before = len(hidden(folder))
            one = killed("backup", source, target, chance.uniform(0.0, 0.06), one_before=bool(number % 2))
            done += one
            debris += len(hidden(folder)) > before
            assert visible(folder) <= {target}
            assert target.exists() or not one
            if target.exists():
                copy = tmp_path / "copy"
                report = asyncio.run(embedded.restore(target, copy))
                assert report.messages == len(messages)
                assert court.judge(copy, messages) == []
                remove(copy)
                target.unlink()
        assert asyncio.run(embedded.verify(source)).ok
        assert court.judge_copy(source, messages) == []
    print(f"\n{rounds} backups killed: {done} had one done before, {debris} left debris")
    assert debris, "no kill came in the middle"
    assert done, "no backup was ever done"


def kill_restores(tmp_path, rounds):
    source, folder, chance = tmp_path / "source", tmp_path / "kept", random.Random(4)
    folder.mkdir()
    messages, debris, complete = asyncio.run(filled(source)), 0, 0
    file = tmp_path / "file.hrbak"

    async def backup():
        async with embedded.open(source, options=SMALL) as streams:
            await streams.backup(file)

    asyncio.run(backup())
    with Court() as court:
        for number in range(rounds):
            target = folder / str(number)
            target.mkdir()
            one = killed("restore", file, target, chance.uniform(0.0, 0.06), one_before=bool(number % 2))
            assert (target / "0").exists() or not one
            debris += bool(hidden(target))
            asyncio.run(embedded.restore(file, target / "after"))
            for store in visible(target):
                complete += store.name != "after"
                assert asyncio.run(embedded.verify(store)).messages == len(messages)
                assert court.judge(store, messages) == []
            remove(target)
    print(f"\n{rounds} restores killed: {complete} were complete, {debris} left debris")
    assert debris, "no kill came in the middle"
    assert complete, "no restore was ever done"


def hidden(folder):
    return {path for path in folder.iterdir() if path.name.startswith(".")}


def visible(folder):
    return set(folder.iterdir()) - hidden(folder)


def remove(path):
    for each in sorted(path.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    path.rmdir()


@pytest.mark.parametrize("kill", [kill_backups, kill_restores])
def test_backup_killed_few(tmp_path, kill):
    kill(tmp_path, 4)


@pytest.mark.chaos
@pytest.mark.parametrize("kill", [kill_backups, kill_restores])
def test_backup_killed(tmp_path, rounds, kill):
    kill(tmp_path, max(20, rounds // 8))
