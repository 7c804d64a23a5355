"""JetStream beside its peers: one server, alternating order, medians of several repeats (spec/jetstream.md, section 6).

Each client publishes to, or reads from, streams that are made the same way, on disk, without syncing each message (the
server's default). CPU is the client's process only; the server's stands beside it in no column.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import tracemalloc
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from benchmarks import golang
from benchmarks.certificates import certificate
from benchmarks.clients import BATCH, Headrace, Run, python_clients
from benchmarks.tools import Meter, loop_cost
from headrace import jetstream
from headrace.streams import ConsumerConfig, PullOptions, StreamConfig
from headrace.testing.nats import NatsServer
from headrace.testing.nats.asking import ask

READS = ("consume_ack", "fetch_ack", "ordered_read", "seam_worker")
SLACK = 1.3
IDLE = 1_000
SMALL = 20


@dataclass(frozen=True)
class Case:
    """One row of the specification's table; ``least`` = times the rate of (nats-py, nats.go), ``most`` = µs of CPU."""

    kind: str
    count: int
    window: int = BATCH
    size: int = 100
    tls: bool = False
    least: tuple[float | None, float | None] = (None, None)
    most: float | None = None

    @property
    def title(self):
        window = f" {self.window}" if self.kind in ("publish_pipelined", "consume_ack", "fetch_ack") else ""
        return f"{self.kind}{window}, {self.size} B{', TLS' if self.tls else ''}"

    @property
    def wanted(self):
        wanted = [
            f">= {least:g} x {peer}" for least, peer in zip(self.least, ("nats-py", "nats.go"), strict=True) if least
        ]
        return ", ".join([*wanted, *([f"<= {self.most:g} µs"] if self.most else [])]) or "reported"


CASES = (
    Case("publish_pipelined", 100_000, 1_000, least=(3, 0.9), most=4),
    Case("publish_pipelined", 100_000, 4_000, least=(3, 0.9), most=4),
    Case("consume_ack", 100_000, 500, least=(4, 0.9), most=3),
    Case("consume_ack", 100_000, 4_000, least=(4, 0.9), most=3),
    Case("publish_pipelined", 50_000, 1_000, 1_024, least=(3, 0.9)),
    Case("publish_pipelined", 50_000, 4_000, 1_024, least=(3, 0.9)),
    Case("consume_ack", 50_000, 500, 1_024, least=(4, 0.9)),
    Case("consume_ack", 50_000, 4_000, 1_024, least=(4, 0.9)),
    Case("publish_pipelined", 50_000, 1_000, tls=True, least=(None, 1)),
    Case("consume_ack", 50_000, 500, tls=True, least=(None, 1)),
    Case("seam_publish_batch", 100_000, most=6),
    Case("seam_worker", 100_000, most=7),
    Case("ordered_read", 100_000, 500),
    Case("publish_sync", 5_000, least=(1.5, None)),
    Case("fetch_ack", 50_000, 500),
    Case("core_publish", 200_000),
    Case("core_pubsub", 100_000),
)


class Ground:
    """The server, its streams and certificate."""

    def __init__(self, server, trusted):
        self.server = server
        self.trusted = trusted
        self._numbers = count(1)
        self._filled = {}

    def run_of(self, case, body):
        """What a client is to do, on a stream that is as empty, or as full, as for every other client."""
        number = next(self._numbers)
        stream, subject = f"P{number}", f"p{number}.a"
        if case.kind in READS:
            stream, subject = self._full(case)
        else:
            self._make(stream, subject)
        consumer = f"c{number}"
        if case.kind in ("consume_ack", "fetch_ack"):
            wanted = {"durable_name": consumer, "ack_policy": "explicit", "max_ack_pending": -1}
            path = f"CONSUMER.DURABLE.CREATE.{stream}.{consumer}"
            self._ask(path, {"stream_name": stream, "config": wanted})
        return Run(case.kind, self.server.url, case.count, case.window, body, self.trusted if case.tls else None,
                   stream, consumer, subject)  # fmt: skip

    def drop(self, run):
        """Away with what it published."""
        if run.kind not in READS:
            self._ask(f"STREAM.DELETE.{run.stream}")

    def _full(self, case):
        """A stream of `count` messages, made once; as headrace's seam wrote them where that is to read them."""
        seam = case.kind == "seam_worker"
        key = ("W" if seam else "R") + f"{case.count}x{case.size}"
        subject = f"{key.lower()}.a"
        if key not in self._filled:
            self._make(key, subject)
            kind = "seam_publish_batch" if seam else "publish_pipelined"
            Headrace().measure(Run(kind, self.server.url, case.count, BATCH, b"x" * case.size, None, key, "", subject))
            self._filled[key] = subject
        return key, subject

    def _make(self, stream, subject):
        self._ask(f"STREAM.CREATE.{stream}", {"name": stream, "subjects": [subject], "storage": "file"})

    def _ask(self, path, body=None):
        answer = ask(self.server.port, path, body)
        if error := answer.get("error", None if answer else "no JetStream"):
            raise RuntimeError(f"{path}: {error}")


def measured(ground, case, clients, repeats):
    """client -> samples, and how fast the machine was. Who begins changes with each repeat."""
    samples, body = defaultdict(list), b"x" * case.size
    able = [client for client in clients if case.kind in client.kinds]
    for turn in range(repeats):
        for client in able if turn % 2 == 0 else reversed(able):
            run = ground.run_of(case, body)
            before = loop_cost()
            samples[client.name].append((client.measure(run), (before + loop_cost()) / 2))
            ground.drop(run)
    return {client.name: samples[client.name] for client in able}


def shown(case, samples):
    """Print a case; the median rate and CPU of each client, and of a plain loop's round in µs beside it."""
    found = {
        name: (
            case.count / statistics.median(sample.seconds for sample, _ in taken),
            statistics.median(sample.cpu for sample, _ in taken) / case.count * 1e6,
            statistics.median(loop for _, loop in taken),
        )
        for name, taken in samples.items()
    }
    print(f"\n{case.title}: {case.count:,} messages, wanted {case.wanted}")
    for name, (rate, cpu, loop) in found.items():
        ratios = [
            f"{rate / found[peer][0]:.2f} x {peer}" for peer in ("nats-py", "nats.go") if peer in found and peer != name
        ]
        print(f"  {name:<20}{rate:>12,.0f}/s{cpu:>9.2f} µs at {loop:.2f}   {', '.join(ratios)}", flush=True)
    return found


def too_dear(case, found):
    """What the CPU says, which a busy machine changes less than the rate: the target against nats-py, with slack."""
    least, _ = case.least
    if not least or "nats-py" not in found:
        return None
    ratio = found["nats-py"][1] / found["headrace"][1]
    return (
        f"{case.title}: {ratio:.2f} x cheaper than nats-py, wanted {least / SLACK:.2f}"
        if ratio < least / SLACK
        else None
    )


async def idle_sessions(url, number, seconds):
    """So many parked pulls on one consumer: what they cost while nothing comes."""
    async with jetstream.connect(url) as js:
        await js.create_stream(StreamConfig(name="IDLE"))
        consumer = await js.create_consumer("IDLE", ConsumerConfig(durable="c", max_waiting=2 * number))
        tracemalloc.start()
        contexts = [consumer.messages(PullOptions(max_messages=1)) for _ in range(number)]
        for context in contexts:
            await context.__aenter__()
        waiting = [asyncio.ensure_future(context.next()) for context in contexts]
        await asyncio.sleep(1)
        grown = tracemalloc.get_traced_memory()[0] / number / 1024
        tracemalloc.stop()
        with Meter() as meter:
            await asyncio.sleep(seconds)
        share = meter.cpu / meter.wall
        print(f"\nidle_sessions: {number:,} of them cost {share:.1%} of one core and {grown:.0f} KiB each")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for context in contexts:
            await context.__aexit__(None, None, None)


def everything(folder, given):
    """All cases that were asked for; what costs more CPU than it may."""
    clients, dear = python_clients(), []
    if go := golang.built(folder):
        clients.append(go)
    made = certificate(folder)
    tls = f'tls {{ cert_file: "{made[0]}", key_file: "{made[1]}" }}\nallow_non_tls: true\n' if made else ""
    print(f"this machine now: {loop_cost():.3f} µs for one round of a plain loop")
    with NatsServer(folder / "store", config=tls) as server:
        ground = Ground(server, str(made[0]) if made else None)
        for case in CASES:
            if given.only in case.title and (made or not case.tls):
                small = replace(case, count=case.count // SMALL) if given.small else case
                found = shown(small, measured(ground, small, clients, 1 if given.small else given.repeats))
                dear.append(too_dear(case, found))
        if given.only in "idle_sessions":
            asyncio.run(idle_sessions(server.url, IDLE // (SMALL if given.small else 1), 1 if given.small else 5))
    print(f"this machine now: {loop_cost():.3f} µs for one round of a plain loop")
    return list(filter(None, dear))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a twentieth of the messages, once: does it run at all")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each client and case (default: 3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their title")
    parser.add_argument("--check", action="store_true", help="fail where CPU misses the targets by more than 30 %%")
    parser.add_argument("--directory", help="where the server stores (default: a temporary directory)")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=given.directory))
    try:
        dear = everything(folder, given)
    finally:
        shutil.rmtree(folder)
    if given.check and dear:
        sys.exit("\n".join(dear))


if __name__ == "__main__":
    main()
