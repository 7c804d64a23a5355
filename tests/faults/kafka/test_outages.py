"""The broker dies and comes back, a member freezes past its session: work goes on, no commit passes what is undone."""

import asyncio
import signal
import time

import pytest

from headrace.testing.kafka import KafkaServer
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.troupe import through

COUNT = 10_000
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

        verdict = asyncio.run(through(tmp_path, server.bootstrap, protocol, COUNT, disturb, pace=0.3))
    print(f"{protocol}, broker ended three times: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager"])
def test_sigstop_fenced(protocol, tmp_path, kafka_server):  # noqa: F811
    """A member freezes while it works; the others take over, and what it does once it thaws counts for nothing.

    Nothing that waited in it begins any more: a key that ran in it counts as ended when it froze, and only that.
    """

    async def disturb(troupe):
        while not (busy := [path.stem for path in tmp_path.glob("*.journal") if b" S " in path.read_bytes()]):
            await asyncio.sleep(0.05)
        name = busy[0]
        process = troupe.alive[name]
        troupe.deaths[name] = time.monotonic_ns()
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN)
        process.send_signal(signal.SIGCONT)

    verdict = asyncio.run(through(tmp_path, kafka_server.bootstrap, protocol, COUNT, disturb, pace=0.3))
    print(f"{protocol}, a member frozen: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.stays > 8, "nobody took over: a run without a fault proves nothing"
    assert verdict.starts > COUNT, "it froze with nothing in hand: a run without a fault proves nothing"
