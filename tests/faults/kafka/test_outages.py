"""The broker dies and comes back, a member freezes past its session: work goes on, no commit passes what is undone."""

import asyncio
import signal
import time

import pytest

from headrace.core.message import new_id
from headrace.testing.kafka import KafkaServer
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.journal import judge
from tests.faults.kafka.test_storm import Troupe, handled, publish

FROZEN = 9.0  # longer than the session of a member


async def everything(folder, count):
    """Until all was handled; patience is for standing still."""
    before, end = 0, time.monotonic() + 90
    while (now := handled(folder)) < count:
        if now > before:
            before, end = now, time.monotonic() + 90
        assert time.monotonic() < end, f"{now} of {count} were handled"
        await asyncio.sleep(0.3)


async def through(folder, address, protocol, count, disturb, *, pace=0.05):
    """Three members at work while `disturb(troupe)` does its worst; the judge's word."""
    topic = f"outage-{new_id()}"
    published = await publish(address, topic, count)
    troupe = Troupe(folder, address, topic, protocol, pace)
    try:
        for _ in range(3):
            await troupe.join()
        while not handled(folder):
            await asyncio.sleep(0.1)
        await disturb(troupe)
        await everything(folder, count)
        await troupe.close()
    finally:
        for process in troupe.alive.values():
            process.kill()
            await process.wait()
    return judge(folder, published, troupe.deaths)


@pytest.mark.chaos
@pytest.mark.servers
def test_broker_restart(tmp_path, kafka_installed):  # noqa: F811
    """Killed and started three times: nobody hears of it but a log, and everything is handled."""
    with KafkaServer(libs=kafka_installed) as server:

        async def disturb(_):
            for _ in range(3):
                await asyncio.sleep(2)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(1)
                await asyncio.to_thread(server.start)

        verdict = asyncio.run(through(tmp_path, server.bootstrap, "cooperative", 10_000, disturb, pace=0.3))
    print(f"broker killed three times: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager"])
def test_sigstop_fenced(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """A member freezes while it works; the others take over, and what it does once it thaws counts for nothing."""
    if in_ci:
        pytest.skip("open: once it thaws it may begin what waited in it, before it hears that others have it")

    async def disturb(troupe):
        name, process = min(troupe.alive.items())
        troupe.deaths[name] = time.monotonic_ns()
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN)
        process.send_signal(signal.SIGCONT)

    verdict = asyncio.run(through(tmp_path, kafka_server.bootstrap, protocol, 10_000, disturb, pace=0.3))
    print(f"{protocol}, a member frozen: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.stays > 8, "nobody took over: a run without a fault proves nothing"
