"""The broker dies and comes back, a member freezes past its session: work goes on, no commit passes what is undone."""

import asyncio
import signal
import time

import pytest

from headrace.testing.kafka import KafkaServer
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.troupe import through

FROZEN = 9.0  # longer than the session of a member


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_broker_restart(protocol, tmp_path, kafka_installed, in_ci):  # noqa: F811
    """Killed, stopped in good order, killed, and started each time: all is handled, and nobody hears but a log."""
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    with KafkaServer(libs=kafka_installed) as server:

        async def disturb(_):
            for end in (server.kill, server.stop, server.kill):
                await asyncio.sleep(2)
                await asyncio.to_thread(end)
                await asyncio.sleep(1)
                await asyncio.to_thread(server.start)

        verdict = asyncio.run(through(tmp_path, server.bootstrap, protocol, 10_000, disturb, pace=0.3))
    print(f"{protocol}, broker ended three times: {verdict}")
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
