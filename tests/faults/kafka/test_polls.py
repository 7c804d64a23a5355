"""Handlers and threads that take long: whose thread polls stays a member, whose thread does not loses what it had."""

import asyncio
import signal
from collections import defaultdict

import pytest

from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.journal import count_of, held_by, lines_of
from tests.faults.kafka.troupe import through
from tests.faults.kafka.watching import shared_out

SHORTEST = 6.0  # seconds: no session that the broker takes is shorter, and no interval of polls is than that
ALL_LATE = {"options": {"max_poll_interval": SHORTEST, "drain_timeout": 5}}


def faults(folder):
    """Member -> from when to when it blocked or was frozen, in ns."""
    found = defaultdict(list)
    for at, member, kind, *_ in lines_of(folder):
        if kind in {b"Z", b"T"}:
            found[member].append(at)
    return {member: tuple(times) for member, times in found.items()}


async def struck(troupe, names):
    """Until the fault of each of these has come and gone."""
    async with asyncio.timeout(60):
        while any(len(faults(troupe.folder).get(name, ())) < 2 for name in names):
            await asyncio.sleep(0.1)


async def come_back(troupe, name):
    """Until this member has been given partitions after its fault."""
    async with asyncio.timeout(60):
        while not count_of(troupe.folder, b"B", faults(troupe.folder)[name][1], member=name):
            await asyncio.sleep(0.1)


def told(folder, kind, member, start, stop):
    """(partition, offset) of the lines of this kind."""
    return {line[3:5] for line in lines_of(folder) if line[1] == member and line[2] == kind and start < line[0] < stop}


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_blocked_past_max_poll_interval(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """A handler of each member blocks its loop for longer than it may be silent: the thread polls, nobody loses."""
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    more = ALL_LATE | {"fault": SHORTEST + 1}

    async def disturb(troupe):
        await shared_out(troupe)
        for process in troupe.alive.values():
            process.send_signal(signal.SIGUSR2)
        await struck(troupe, troupe.alive)

    enough = 3_000 if protocol == "cooperative" else 12_000  # there it is shared out late, and each needs some then
    verdict = asyncio.run(through(tmp_path, kafka_server.bootstrap, protocol, enough, disturb, pace=0.3, more=more))
    blocked = faults(tmp_path)
    print(f"{protocol}, {len(blocked)} members blocked for {more['fault']} s: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert not verdict.again
    begun, over = min(start for start, _ in blocked.values()), max(stop for _, stop in blocked.values())
    assert count_of(tmp_path, b"B", begun, over) == 0, "somebody was taken for dead"


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager"])
def test_max_poll_interval_lost(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """A thread that does not poll for so long: others take over, it commits nothing of that, and comes back.

    With the newer protocol the driver leaves the group only once it is polled again: nobody takes over before.
    """
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    more = ALL_LATE | {"fault": SHORTEST + 3}

    async def disturb(troupe):
        await shared_out(troupe)
        name = min(troupe.alive)
        troupe.alive[name].send_signal(signal.SIGUSR1)
        await struck(troupe, [name])
        await come_back(troupe, name)

    verdict = asyncio.run(through(tmp_path, kafka_server.bootstrap, protocol, 4_000, disturb, pace=0.3, more=more))
    ((member, (frozen, thawed)),) = faults(tmp_path).items()
    print(f"{protocol}, a thread frozen for {more['fault']} s: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert count_of(tmp_path, b"B", frozen, thawed), "nobody took over: a run without a fault proves nothing"
    back = [at for at, name, kind, *_ in lines_of(tmp_path) if name == member and kind == b"B" and at > thawed]
    late = told(tmp_path, b"C", member, thawed, back[0])  # it may try, before it hears what it has lost
    assert not late & told(tmp_path, b"A", member, thawed, back[0])
    assert set(verdict.again_in) <= held_by(tmp_path, member, frozen)


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_slow_handlers(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """Handlers that take seconds, while members come and leave: they are waited for, and nothing is done twice."""
    if in_ci:
        pytest.skip("the long run has it")

    async def disturb(troupe):
        for _ in range(10):
            await troupe.join()
            await asyncio.sleep(2)
            await troupe.end(min(troupe.alive), signal.SIGTERM)

    verdict = asyncio.run(through(tmp_path, kafka_server.bootstrap, protocol, 2_000, disturb, pace=4.0))
    print(f"{protocol}, slow handlers: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert not verdict.again
    assert verdict.stays > 8, "nothing was taken over: a run without a fault proves nothing"
