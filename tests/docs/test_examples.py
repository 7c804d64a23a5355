"""The examples run as they are, against a real Kafka, with topics and groups of their own."""

import os
import re
import subprocess
import sys
import time
from itertools import count

import pytest

from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"
numbers = count(int(time.time() * 1000))


@pytest.fixture
def example(kafka_server, tmp_path):
    name = f"example.{next(numbers)}"
    kafka_server.create_topic(name, partitions=1)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    environment = kept | {
        "HEADRACE_KAFKA_BROKERS": kafka_server.bootstrap,
        "HEADRACE_KAFKA_TOPIC": name,
        "HEADRACE_KAFKA_GROUP": name,
        "HEADRACE_KAFKA_TIMEOUT": "40s",
    }

    def run(script, **more):
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / script],
            cwd=tmp_path, env=environment | more, text=True, capture_output=True, timeout=50, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.replace(name, "TOPIC").splitlines()

    return run


def test_every_example_is_run_here():
    text = (ROOT / "tests" / "docs" / "test_examples.py").read_text()
    assert {path.name for path in EXAMPLES.glob("kafka_*.py")} == set(re.findall(r'example\("(\w+\.py)"', text))


def test_group(example):
    first, *handled = example("kafka_group.py")
    assert first == "group-consumer(TOPIC:TOPIC)"
    assert sorted(handled) == [
        "TOPIC/0@0 key=b'alice' attempt=1 b'one'",
        "TOPIC/0@1 key=b'alice' attempt=3 b'two'",
        "TOPIC/0@2 key=b'bob' attempt=1 b'three'",
    ]
    assert [line.split()[0] for line in handled if "alice" in line] == ["TOPIC/0@0", "TOPIC/0@1"]


def test_partition_goes_on_where_it_stopped(example):
    for begin in (0, 12):
        first, *handled, last = example("kafka_partition.py")
        assert first == f"partition-consumer(TOPIC:0) begins at {begin or None}"
        assert sorted(handled) == sorted(f"TOPIC/0@{begin + number} b'parcel {number}'" for number in range(12))
        assert last == f"the next run begins at {begin + 12}"


def test_a_partition_that_is_not_there(example):
    with pytest.raises(AssertionError, match="has no partition 7"):
        example("kafka_partition.py", HEADRACE_KAFKA_PARTITION="7")


def test_producer(example):
    assert example("kafka_producer.py") == [
        "produce       ProduceResult(TOPIC/0@0, attempt=1)",
        "produce_async ProduceResult(TOPIC/0@1, attempt=1)",
        "produce_many  ProduceResult(TOPIC/0@2, attempt=1)",
        "produce_many  PublishError('2000048 bytes with key and headers, at most 10",
        "produce_many  ProduceResult(TOPIC/0@3, attempt=1)",
        "produce_batch 1 [ProduceResult(TOPIC/0@4, attempt=1)] Fault.REJECTED",
    ]


def test_trace(example):
    pytest.importorskip("opentelemetry.sdk")
    assert [re.sub(r"\d@", "N@", line).split() for line in example("kafka_trace.py")] == [
        line.split()
        for line in (
            "send TOPIC.traced UNSET N@0 child of None",
            "process TOPIC.traced ERROR N@0 child of send TOPIC.traced",
            "send TOPIC.bills UNSET N@0 child of process TOPIC.traced",
            "process TOPIC.traced UNSET N@0 child of send TOPIC.traced",
        )
    ]
