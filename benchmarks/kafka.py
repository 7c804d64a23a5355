"""Kafka beside its peers: one real broker, 4 partitions, 1,000 keys unless said, medians (spec/kafka.md, section 6).

Reading is measured from the first record to the last: joining a group takes each client its own seconds. CPU is the
client's process, the driver's threads included; the broker's stands beside it in no column.
"""

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import count

from benchmarks import pyrallel
from benchmarks.kafka_clients import CLIENTS, Run
from benchmarks.tools import loop_cost
from headrace.core.errors import ConfigError
from headrace.testing.kafka import KafkaServer

SMALL = 20
PARTITIONS = 4


@dataclass(frozen=True)
class Case:
    """One row of the specification's table. Kinds begin with the method that is measured."""

    kind: str
    count: int
    size: int = 1_024
    keys: int = 1_000
    wanted: str = "reported"


CASES = (
    Case("consume", 200_000, wanted="<= 4 µs, >= 1.8 x aiokafka, >= 3 x FastStream and pyrallel"),
    Case("consume", 200_000, 100),
    Case("consume suspends once", 100_000, 100),
    Case("consume unique keys", 100_000, 100, 1 << 60),
    Case("produce_many", 200_000, 100, wanted=">= 0.85 x confluent"),
    Case("produce_many", 100_000, wanted=">= 0.85 x confluent"),
    Case("produce_async", 100_000, 100, wanted=">= 1 x AIOProducer, >= 1.3 x aiokafka"),
    Case("produce_async", 50_000, wanted=">= 1 x AIOProducer, >= 1.3 x aiokafka"),
    Case("produce_traced", 50_000, 100),
    Case("produce_traced recorded", 50_000, 100),
    Case("produce_one", 300, 100),
    Case("produce_total", 300, 100),
)
NEEDS = {"AIOProducer": "confluent_kafka", "aiokafka": "aiokafka", "FastStream": "faststream"}


@cache
def lacking():
    """name of a client -> why it cannot be measured here."""
    missing = {
        name: f"{module} is not installed (make bench installs the extra `bench`)"
        for name, module in NEEDS.items()
        if find_spec(module) is None
    }
    reason = pyrallel.lacking()
    return missing | ({"pyrallel": reason, "pyrallel tuned": reason} if reason else {})


def filled(address, case, clients, number):
    """A topic of so many records, for those that read."""
    topic = f"full-{number}"
    run = Run("produce_many", address, topic, "", case.count, case.keys, b"x" * case.size)
    clients[0].measure(run)
    return topic


def measured(server, case, repeats, numbers):
    reads = case.kind.startswith("consume")
    clients = [client for client in CLIENTS[case.kind] if client.name not in lacking()]
    samples, body = defaultdict(list), b"x" * case.size
    topic = filled(server.bootstrap, case, clients, next(numbers)) if reads else None
    for turn in range(repeats):
        for client in clients if turn % 2 == 0 else reversed(clients):
            number = next(numbers)
            name = topic or f"empty-{number}"
            if not reads:
                server.create_topic(name, PARTITIONS)
            run = Run(case.kind, server.bootstrap, name, f"g{number}", case.count, case.keys, body)
            try:
                samples[client.name].append((client.measure(run), loop_cost()))
            except pyrallel.UnfinishedError as error:
                print(f"\nNOT FINISHED: {client.name}, {case.kind}, {case.size} B: {error}", flush=True)
    return {client.name: samples[client.name] for client in clients if samples[client.name]}


def shown(case, samples):
    print(f"\n{case.kind}, {case.size} B: {case.count:,} messages, wanted {case.wanted}")
    rates = {name: case.count / statistics.median(each.seconds for each, _ in taken) for name, taken in samples.items()}
    for name, taken in samples.items():
        cpu = statistics.median(each.cpu for each, _ in taken) / case.count * 1e6
        loop = statistics.median(cost for _, cost in taken)
        ratios = ", ".join(f"{rates[name] / rates[peer]:.2f} x {peer}" for peer in rates if peer != name)
        print(f"  {name:<16}{rates[name]:>12,.0f}/s{cpu:>9.2f} µs at {loop:.2f}   {ratios}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a twentieth of the messages, once: does it run at all")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each client and case (default: 3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their kind")
    given = parser.parse_args()
    for name, reason in lacking().items():
        print(f"SKIPPED: {name}, {reason}")
    numbers = count(1)
    try:
        server = KafkaServer(java_options=("-Xmx1g",), config={"num.partitions": str(PARTITIONS)})
    except ConfigError as error:
        print(f"SKIPPED: Kafka, {error}")
        return
    with server:
        for case in CASES:
            if given.only in case.kind:
                small = replace(case, count=max(50, case.count // SMALL)) if given.small else case
                shown(small, measured(server, small, 1 if given.small else given.repeats, numbers))


if __name__ == "__main__":
    main()
