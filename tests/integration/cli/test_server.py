"""Every command on a real nats-server; what needs a directory says so."""

import json
import signal

import pytest

from headrace.testing.nats import NatsServer, free_port
from tests.integration.cli.commands import Here, make_repository, process

SECRET = "s3cret"


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


@pytest.fixture
def headrace(server, capsys, monkeypatch):
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    return Here(server.url, capsys)


def bodies(printed):
    return [line["body"] for line in printed.lines]


def test_messages(headrace):
    sent = headrace.done(
        "pub", "orders", '{"id": 1}', "--key", "1", "--id", "first", "-H", "Source: test", "--json"
    ).json
    assert sent == {
        "topic": "orders", "published": 1, "duplicates": 0, "position": {"stream": "orders", "sequence": 1},
    }  # fmt: skip
    assert headrace.done("pub", "orders", "again", "--id", "first", "--json").json["duplicates"] == 1
    headrace.done("pub", "orders.new", "two")
    (line,) = headrace.done("tail", "orders", "--json").lines
    assert (line["id"], line["key"], line["headers"], line["body"]) == (
        "first", "1", [["Source", "test"]], '{"id": 1}',
    )  # fmt: skip
    assert bodies(headrace.done("tail", "orders.>", "--json")) == ["two"]
    assert bodies(headrace.done("tail", "orders", "--from", "1", "--json")) == ['{"id": 1}']
    assert headrace.done("get", "orders", "1", "--raw").out == '{"id": 1}'
    assert headrace.done("get", "orders.new", "--json").json["body"] == "two"
    assert headrace("get", "orders", "9").code == 3
    assert headrace("get", "nothing.there").code == 3


def test_many_lines(headrace, tmp_path):
    lines = [json.dumps({"id": number, "user": f"u{number % 3}"}) for number in range(2_500)]
    (tmp_path / "lines").write_text("\n".join(lines))
    command = ("pub", "lines", "--file", tmp_path / "lines", "--key", "user", "--id", "id", "--json")
    assert headrace.done(*command).json["published"] == 2_500
    assert headrace.done(*command).json == {
        "topic": "lines", "published": 0, "duplicates": 2_500, "position": {"stream": "lines", "sequence": 2_500},
    }  # fmt: skip
    assert bodies(headrace.done("tail", "lines", "-n", "3", "--json")) == lines[-3:]


def test_tail_follows_until_ctrl_c(headrace):
    headrace.done("pub", "followed", "1")
    with process("tail", "followed", "-f", "--json", "--url", headrace.url) as running:
        assert json.loads(running.stdout.readline())["body"] == "1"
        headrace.done("pub", "followed", "2")
        assert json.loads(running.stdout.readline())["body"] == "2"
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stderr.read() == "headrace: interrupted\n"


def test_streams(headrace):
    added = headrace.done("stream", "add", "s1", "--subject", "s1.>", "--max-age", "1h", "--json").json
    assert added["config"]["subjects"] == ["s1.>"]
    headrace.done("stream", "add", "s1", "--subject", "s1.>", "--max-age", "1h")
    assert headrace("stream", "add", "s1", "--subject", "other").code == 1
    for number in range(5):
        headrace.done("pub", "s1.x", str(number))
    assert "s1" in headrace.done("stream", "ls").out
    info = headrace.done("stream", "info", "s1", "--subjects", "--json").json
    assert (info["state"]["messages"], info["state"]["subjects"]) == (5, {"s1.x": 5})
    assert headrace("stream", "purge", "s1", "--keep", "2").code == 2  # nobody can be asked
    headrace.done("stream", "purge", "s1", "--keep", "2", "--yes")
    assert headrace.done("stream", "info", "s1", "--json").json["state"]["messages"] == 2
    headrace.done("stream", "rm", "s1", "--yes")
    assert headrace("stream", "rm", "s1", "--yes").code == 3
    assert headrace("stream", "info", "s1").code == 3


def test_consumers(headrace):
    headrace.done("stream", "add", "c1")
    headrace.done("pub", "c1", "x")
    command = ("consumer", "add", "c1", "workers", "--ack-wait", "5m", "--max-deliver", "3")
    assert headrace.done(*command, "--json").json["config"]["ack_wait"] == 300.0
    headrace.done(*command)
    assert headrace("consumer", "add", "c1", "workers", "--ack-wait", "6m").code == 1
    (info,) = headrace.done("consumer", "ls", "c1", "--json").json
    assert (info["name"], info["num_pending"]) == ("workers", 1)
    assert headrace.done("consumer", "info", "c1", "workers", "--json").json["name"] == "workers"
    headrace.done("consumer", "rm", "c1", "workers", "--yes")
    assert headrace("consumer", "rm", "c1", "workers", "--yes").code == 3
    assert headrace("consumer", "ls", "nothing").code == 3


def test_dead_letters_and_the_demo(headrace, tmp_path):
    """The demo leaves some on purpose; sent back, they are handled."""
    repository = make_repository(tmp_path / "repository", commits=60, authors=5)
    first = headrace.done("demo", "--repo", repository, "--json").json
    assert first["holds"] is True
    assert first["published"] == 60
    assert first["dead"] >= 1
    assert {"topic": "dead.commits", "letters": first["dead"]} in headrace.done("dead", "ls", "--json").json
    letters = headrace.done("dead", "ls", "commits", "--json").json
    assert len(letters) == first["dead"]
    assert headrace.done("dead", "show", "commits", letters[0]["id"], "--json").json == letters[0]
    assert headrace.done("dead", "redrive", "commits", "--all", "--json").json["moved"] == first["dead"]
    again = headrace.done("demo", "--repo", repository, "--json").json
    assert again["holds"] is True
    assert (again["dead"], again["handled"]) == (0, 60)


def test_bench_leaves_nothing(headrace, server):
    before = headrace.done("stream", "ls", "--json").json
    report = headrace.done("bench", "-n", "500", "--json").json
    assert [result["messages"] >= 500 for result in report["results"]] == [True] * 4
    assert report["url"] == server.url
    assert len(headrace.done("stream", "ls", "--json").json) == len(before)


def test_doctor(headrace):
    report = headrace.done("doctor", "--json").json
    assert report["healthy"] is True
    checks = {check["check"]: check["text"] for check in report["checks"]}
    assert set(checks) == {"machine", "sqlite", "broker"}
    assert checks["broker"].startswith("nats-server 2.")


def test_what_needs_a_directory(headrace, tmp_path):
    for command in (("backup", tmp_path / "file"), ("restore", tmp_path / "file")):
        ended = headrace("stream", *command)
        assert ended.code == 2
        assert "works on a directory" in ended.err
        assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("pub", "orders", "x"), ("tail", "orders"), ("get", "orders"), ("stream", "ls"), ("stream", "add", "s"),
        ("consumer", "ls", "s"), ("dead", "ls"), ("doctor",), ("bench", "-n", "10"),
    ],
)  # fmt: skip
def test_unreachable(headrace, command):
    ended = headrace(*command, url=f"nats://alice:{SECRET}@127.0.0.1:{free_port()}")
    assert ended.code == 4
    assert ended.err.startswith("headrace: ")
    assert ended.err.count("\n") == 1
    assert SECRET not in ended.out + ended.err


def test_a_server_without_streams(headrace):
    with NatsServer(jetstream=False) as bare:
        ended = headrace("stream", "ls", url=bare.url)
        assert ended.code == 1
        assert "Traceback" not in ended.err


@pytest.mark.parametrize("url", ["nats://", "nats://a:x", "nats://127.0.0.1:4222?x=1", f"nats://u:{SECRET}@a/b"])
def test_wrong_urls(headrace, url):
    ended = headrace("stream", "ls", url=url)
    assert ended.code == 2
    assert SECRET not in ended.err


def test_credentials_are_never_printed(headrace):
    with NatsServer(config=f"authorization {{ user: alice, password: {SECRET} }}") as guarded:
        url = f"nats://alice:{SECRET}@127.0.0.1:{guarded.port}"
        for command in (("doctor", "--json"), ("bench", "-n", "10", "--json"), ("stream", "ls", "--json")):
            ended = headrace(*command, url=url)
            assert ended.code == 0
            assert SECRET not in ended.out + ended.err
        for command in (("backup", "file"), ("restore", "file")):
            ended = headrace("stream", *command, url=url)
            assert SECRET not in ended.out + ended.err
        ended = headrace("stream", "ls", url=f"nats://bob:{SECRET}@127.0.0.1:{guarded.port}")
        assert ended.code == 4
        assert SECRET not in ended.err
