"""Every command on a real Kafka: what can work there, and what says that it cannot."""

import json
import os
import signal
import time
from itertools import count

import pytest
from confluent_kafka.admin import AdminClient

from headrace.testing.kafka import KafkaServer
from headrace.testing.nats import free_port
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401  (pytest finds them here)
from tests.integration.cli.commands import Here, make_repository, process

numbers = count(int(time.time() * 1000))


@pytest.fixture
def headrace(kafka_server, capsys, monkeypatch):  # noqa: F811
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    return Here(f"kafka://{kafka_server.bootstrap}", capsys)


@pytest.fixture
def topic(kafka_server):  # noqa: F811
    name = f"cli.{next(numbers)}"
    kafka_server.create_topic(name, partitions=2)
    return name


def bodies(printed):
    return [line["body"] for line in printed.lines]


def test_messages(headrace, topic):
    sent = headrace.done("pub", topic, '{"id": 1}', "--key", "1", "--id", "first", "-H", "Source: test", "--json").json
    assert (sent["published"], sent["duplicates"], sent["position"]["sequence"]) == (1, 0, 0)
    source = sent["position"]["stream"]
    partition = source.removeprefix(f"{topic}/")
    headrace.done("pub", topic, "two", "--key", "1")
    first, second = headrace.done("tail", topic, "--json").lines
    assert (first["stream"], first["id"], first["key"], first["headers"], first["body"]) == (
        source, "first", "1", [["Source", "test"]], '{"id": 1}',
    )  # fmt: skip
    assert (second["stream"], second["sequence"]) == (source, 1)
    assert bodies(headrace.done("tail", topic, "-n", "1", "--json")) == ["two"]
    assert bodies(headrace.done("tail", topic, "--from", "1", "-p", partition, "--json")) == ["two"]
    assert bodies(headrace.done("tail", topic, "-p", str(1 - int(partition)), "--json")) == []
    assert headrace.done("get", topic, "0", "-p", partition, "--raw").out == '{"id": 1}'
    assert headrace.done("get", topic, "--json").json["body"] == "two"


def test_what_is_not_there(headrace, topic):
    assert headrace("get", topic).code == 3
    assert headrace("get", topic, "9", "-p", "0").code == 3
    assert headrace("tail", topic, "-p", "7").code == 3
    missing = f"{topic}.missing"
    for command in (("tail", missing), ("get", missing), ("dead", "show", missing, "id")):
        ended = headrace(*command)
        assert (ended.code, "there is no topic" in ended.err) == (3, True)
    assert headrace.done("dead", "ls", missing).out == f"no dead letters on dead.{missing}\n"
    assert headrace("tail", f"dead.{missing}").code == 3, "looking made it"


def test_an_offset_counts_in_one_partition(headrace, topic):
    for command in (("tail", topic, "--from", "0"), ("get", topic, "0")):
        ended = headrace(*command)
        assert ended.code == 2
        assert ended.err == f"headrace: offsets count in one partition, and '{topic}' has 2: say --partition\n"


def test_many_lines(headrace, topic, tmp_path):
    lines = [json.dumps({"id": number, "user": f"u{number % 3}"}) for number in range(2_500)]
    (tmp_path / "lines").write_text("\n".join(lines))
    sent = headrace.done("pub", topic, "--file", tmp_path / "lines", "--key", "user", "--id", "id", "--json").json
    assert sent["published"] == 2_500
    printed = headrace.done("tail", topic, "-n", "2500", "--json").lines
    assert sorted(line["body"] for line in printed) == sorted(lines)
    for user in ("u0", "u1", "u2"):
        assert [line["body"] for line in printed if line["key"] == user] == [line for line in lines if user in line]


def test_tail_follows_until_ctrl_c(headrace, topic):
    headrace.done("pub", topic, "1", "--key", "a")
    with process("tail", topic, "-f", "--json", "--url", headrace.url) as running:
        assert json.loads(running.stdout.readline())["body"] == "1"
        for number in range(2, 8):
            headrace.done("pub", topic, str(number), "--key", str(number))
            assert json.loads(running.stdout.readline())["body"] == str(number)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stderr.read() == "headrace: interrupted\n"


def test_dead_letters_and_the_demo(headrace, kafka_installed, tmp_path):  # noqa: F811
    """The demo's topics have names of their own, so it has a server of its own."""
    repository = make_repository(tmp_path / "repository", commits=60, authors=5)
    with KafkaServer(libs=kafka_installed) as server:
        headrace.url = f"kafka://{server.bootstrap}"
        first = headrace.done("demo", "--repo", repository, "--json").json
        assert (first["holds"], first["published"], first["authors"]) == (True, 60, 5)
        assert first["dead"] >= 1
        assert headrace.done("dead", "ls", "--json").json == [{"topic": "dead.commits", "letters": first["dead"]}]
        letters = headrace.done("dead", "ls", "commits", "--json").json
        assert len(letters) == first["dead"]
        assert headrace.done("dead", "show", "commits", letters[0]["id"], "--json").json == letters[0]
        redrive = ("dead", "redrive", "commits")
        assert headrace.done(*redrive, "--all", "--dry-run", "--json").json["moved"] == first["dead"]
        last = letters[-1]["id"]
        assert headrace.done(*redrive, last, "--dry-run", "--json").json["moved"] == 1
        assert headrace.done(*redrive, last, "--json").json["moved"] == 1
        again = headrace(*redrive, last)
        assert (again.code, again.err) == (3, f"headrace: redriven before: '{last}' on dead.commits (0 others moved)\n")
        assert headrace.done(*redrive, "--all", "--json").json["moved"] == first["dead"] - 1
        assert headrace.done(*redrive, "--all", "--json").json["moved"] == 0
        again = headrace.done("demo", "--repo", repository, "--json").json
        assert (again["holds"], again["dead"], again["handled"]) == (True, 0, 60)


@pytest.mark.chaos
def test_a_killed_demo_goes_on(headrace, kafka_installed, tmp_path):  # noqa: F811
    repository = make_repository(tmp_path / "repository", commits=1_500, authors=5)
    with KafkaServer(libs=kafka_installed) as server:
        headrace.url = f"kafka://{server.bootstrap}"
        with process("demo", "--repo", repository, "--url", headrace.url) as running:
            for line in running.stdout:
                if line.startswith("published") and "handled 0 " not in line:
                    running.kill()
                    break
        after = headrace.done("demo", "--repo", repository, "--json").json
    assert (after["holds"], after["handled"] + after["dead"]) == (True, 1_500)
    assert after["handled_before"] > 0
    assert after["handled_now"] > 0, "it was killed too late"


def test_bench_leaves_nothing(headrace, kafka_server):  # noqa: F811
    report = headrace.done("bench", "-n", "500", "--json").json
    assert [result["messages"] >= 500 for result in report["results"][1:]] == [True] * 3
    assert report["url"] == headrace.url
    topics = AdminClient({"bootstrap.servers": kafka_server.bootstrap}).list_topics(timeout=10).topics
    assert not [name for name in topics if name.startswith(f"headrace-bench-{os.getpid()}-")]


def test_doctor(headrace):
    report = headrace.done("doctor", "--json").json
    assert report["healthy"] is True
    checks = {check["check"]: check["text"] for check in report["checks"]}
    assert set(checks) == {"machine", "sqlite", "broker"}
    assert checks["broker"].startswith("Kafka answers; ")


@pytest.mark.parametrize(
    "command", [("stream", "ls"), ("stream", "add", "s"), ("stream", "info", "s"), ("consumer", "ls", "s")]
)
def test_what_needs_streams(headrace, command):
    ended = headrace(*command)
    assert ended.code == 2
    assert ended.err == (
        "headrace: Kafka has topics and no streams: this command is for a directory or a NATS server\n"
    )


def test_wildcards(headrace):
    ended = headrace("tail", "orders.>")
    assert (ended.code, "without wildcards" in ended.err) == (2, True)


@pytest.mark.parametrize("command", [("pub", "orders", "x"), ("tail", "orders"), ("doctor",), ("demo",)])
def test_unreachable(headrace, command):
    url = f"kafka://127.0.0.1:{free_port()}"
    ended = headrace(*command, url=url) if command == ("doctor",) else _hurried(headrace, *command, url=url)
    assert ended.code == 4
    assert ended.err.startswith("headrace: ")
    assert ended.err.count("\n") == 1


def _hurried(headrace, *command, url):
    return headrace("--timeout", "500ms", *command, url=url)


@pytest.mark.parametrize("url", ["kafka://", "kafka://a:x", "kafka://a:9092?x=1", "kafka://u:s3cret@a"])
def test_wrong_urls(headrace, url):
    ended = headrace("tail", "orders", url=url)
    assert ended.code == 2
    assert "s3cret" not in ended.err


@pytest.mark.parametrize(
    "command", [("tail", "orders", "-p", "0"), ("get", "orders", "-p", "0"), ("get", "orders", "0")]
)
def test_streams_have_no_partitions(headrace, tmp_path, command):
    headrace.done("pub", "orders", "x", url=tmp_path / "data")
    assert headrace(*command, url=tmp_path / "data").code == 2
