"""Every command on a real directory."""

import base64
import json
import signal
import subprocess
import time

import pytest
import typer

from headrace.cli.main import main
from tests.integration.cli.commands import Here, ended, process


@pytest.fixture
def headrace(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    return Here(tmp_path / "data", capsys)


def bodies(printed):
    return [line["body"] for line in printed.lines]


def test_hello(headrace):
    sent = headrace.done(
        "pub", "orders", '{"id": 1}', "--key", "1", "--id", "first", "-H", "Source: test", "--json"
    ).json
    assert sent == {
        "topic": "orders", "published": 1, "duplicates": 0, "position": {"stream": "orders", "sequence": 1},
    }  # fmt: skip
    (line,) = headrace.done("tail", "orders", "--json").lines
    time = line.pop("time")
    assert time.endswith("+00:00")
    assert line == {
        "stream": "orders", "sequence": 1, "topic": "orders", "id": "first", "key": "1",
        "headers": [["Source", "test"]], "body": '{"id": 1}',
    }  # fmt: skip
    assert headrace.done("get", "orders", "--json").json == {**line, "time": time}
    assert headrace.done("get", "orders", "1", "--raw").out == '{"id": 1}'
    assert '{"id": 1}' in headrace.done("get", "orders").out
    assert "orders  key=1" in headrace.done("tail", "orders").out


def test_the_url_comes_from_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HEADRACE_URL", str(tmp_path / "elsewhere"))
    assert main(["pub", "orders", "x"]) == 0
    assert (tmp_path / "elsewhere" / "streams.db").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_URL")
    assert main(["pub", "orders", "x"]) == 0
    assert (tmp_path / "data" / "streams.db").exists()
    assert main(["tail", "orders", "--url", f"file://{tmp_path}/data"]) == 0


def test_publishing_json_lines_from_a_file(headrace, tmp_path):
    lines = [json.dumps({"id": number, "user": f"u{number % 3}", "text": "ü" * 10}) for number in range(2_500)]
    (tmp_path / "lines").write_text("\n".join([*lines[:3], "", *lines[3:]]))  # an empty line, and no end of line
    command = ("pub", "orders", "--file", tmp_path / "lines", "--key", "user", "--id", "id", "--json")
    assert headrace.done(*command).json["published"] == 2_500
    assert headrace.done(*command).json["duplicates"] == 2_500
    printed = headrace.done("tail", "orders", "-n", "2500", "--json").lines
    assert [line["body"] for line in printed] == lines
    assert [(line["id"], line["key"]) for line in printed[:4]] == [("0", "u0"), ("1", "u1"), ("2", "u2"), ("3", "u0")]


def test_publishing_from_standard_input(headrace):
    running = process("pub", "orders", "--url", headrace.url, "--json", stdin=subprocess.PIPE)
    assert ended(running, stdin='{"a": 1}\n[2]\n"three"\n').json["published"] == 3
    running = process("pub", "orders", "--url", headrace.url, "--json", stdin=subprocess.DEVNULL)
    assert ended(running).json["published"] == 0
    assert bodies(headrace.done("tail", "orders", "--json")) == ['{"a": 1}', "[2]", '"three"']


def test_a_slow_pipe_is_published_as_it_comes_and_ctrl_c_ends_it(headrace):
    headrace.done("pub", "orders", "0")
    with process("pub", "orders", "--url", headrace.url, stdin=subprocess.PIPE) as running:
        running.stdin.write("1\n")
        running.stdin.flush()
        deadline = time.monotonic() + 20
        while bodies(headrace.done("tail", "orders", "--json")) != ["0", "1"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stdout.read().startswith("published 1 to orders")
        assert running.stderr.read() == "headrace: interrupted\n"


def test_a_whole_file_is_one_message(headrace, tmp_path):
    (tmp_path / "picture").write_bytes(bytes(range(256)))
    headrace.done("pub", "pictures", "--file", tmp_path / "picture", "--whole", "--key", "k")
    line = headrace.done("get", "pictures", "--json").json
    assert base64.b64decode(line["body_base64"]) == bytes(range(256))
    assert line["key"] == "k"


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        ("[1]\noops\n[2]\n", [], "line 2 is not JSON"),
        ('{"a": 1}\n{"b": 1}\n', ["--key", "a"], "line 2 has no field 'a' (--key)"),
        ('{"a": 1}\n{"a": [1]}\n', ["--id", "a"], "line 2: field 'a' must be text or a whole number (--id)"),
    ],
)
def test_a_bad_line_is_named_and_what_stood_before_it_is_there(headrace, tmp_path, lines, options, said):
    (tmp_path / "lines").write_text(lines)
    result = headrace("pub", "orders", "--file", tmp_path / "lines", *options)
    assert result.code == 1
    assert result.err.startswith(f"headrace: {said}")
    assert result.out.startswith("published 1 to orders")
    assert len(headrace.done("tail", "orders", "--json").lines) == 1


def test_a_missing_file_and_a_body_over_the_limit(headrace, tmp_path):
    assert headrace("pub", "orders", "--file", tmp_path / "missing").code == 3
    (tmp_path / "big").write_bytes(b"x" * (64 << 20))
    result = headrace("pub", "orders", "--file", tmp_path / "big", "--whole")
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert headrace("get", "orders").code == 3


def test_tail_finds_few_among_many(headrace, tmp_path):
    headrace.done("pub", "orders.rare", '"rare 1"')
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(3_000)))
    headrace.done("pub", "orders.usual", "--file", tmp_path / "lines")
    headrace.done("pub", "orders.rare", '"rare 2"')
    assert bodies(headrace.done("tail", "orders.rare", "-n", "1", "--json")) == ['"rare 2"']
    assert bodies(headrace.done("tail", "orders.rare", "--json")) == ['"rare 1"', '"rare 2"']
    assert bodies(headrace.done("tail", "orders.*", "-n", "2", "--json")) == ["2999", '"rare 2"']
    assert bodies(headrace.done("tail", "orders.usual", "--from", "3000", "--json")) == ["2998", "2999"]
    assert headrace.done("tail", "orders.usual", "-n", "0").out == ""


def test_tail_over_several_streams(headrace):
    for topic, body in (("orders", "1"), ("payments", "2"), ("orders", "3"), ("audit.x", "4")):
        headrace.done("pub", topic, body)
    assert bodies(headrace.done("tail", ">", "--json")) == ["1", "2", "3", "4"]
    assert bodies(headrace.done("tail", ">", "-n", "2", "--json")) == ["3", "4"]
    assert bodies(headrace.done("tail", "*", "--json")) == ["1", "2", "3"]
    assert headrace.done("tail", ">", "-n", "0").out == ""
    assert headrace("tail", ">", "--from", "1").code == 2
    assert headrace("tail", "nothing.here").code == 3
    with process("tail", ">", "-n", "1", "-f", "--json", "--url", headrace.url) as running:
        assert json.loads(running.stdout.readline())["body"] == "4"
        for topic in ("orders", "payments"):
            headrace.done("pub", topic, "new")
            assert json.loads(running.stdout.readline())["topic"] == topic
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130


def test_tail_follows_until_ctrl_c(headrace):
    headrace.done("pub", "orders", "1")
    with process("tail", "orders", "-f", "--json", "--url", headrace.url) as running:
        assert json.loads(running.stdout.readline())["body"] == "1"
        headrace.done("pub", "orders", "2")
        assert json.loads(running.stdout.readline())["body"] == "2"
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130


def test_a_reader_that_has_seen_enough_is_no_error(headrace, tmp_path):
    (tmp_path / "lines").write_text("".join(f'"{number:0100}"\n' for number in range(3_000)))
    headrace.done("pub", "orders", "--file", tmp_path / "lines")
    with process("tail", "orders", "-n", "3000", "--url", headrace.url) as running:
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 0


def test_streams(headrace):
    made = headrace.done(
        "stream", "add", "JOBS", "-s", "jobs.>", "-s", "tasks", "--retention", "limits", "--discard", "new",
        "--max-messages", "10", "--max-age", "7d", "--duplicate-window", "90s", "--description", "work", "--json",
    ).json  # fmt: skip
    assert made["config"]["subjects"] == ["jobs.>", "tasks"]
    assert (made["config"]["max_age"], made["config"]["duplicate_window"]) == (604_800.0, 90.0)
    assert (made["config"]["discard"], made["state"]["messages"]) == ("new", 0)
    assert headrace("stream", "add", "JOBS", "-s", "other").code == 1
    assert headrace("stream", "add", "OTHER", "-s", "jobs.x").code == 1
    for topic in ("jobs.a", "jobs.a", "jobs.b", "tasks"):
        headrace.done("pub", topic, "x")
    (listed,) = headrace.done("stream", "ls", "--json").json
    assert (listed["config"]["name"], listed["state"]["messages"]) == ("JOBS", 4)
    assert headrace.done("stream", "ls", "--subject", "nothing.here", "--json").json == []
    assert headrace.done("stream", "ls", "--subject", "nothing.here").out == "no streams\n"
    state = headrace.done("stream", "info", "JOBS", "--subjects", "--json").json["state"]
    assert state["subjects"] == {"jobs.a": 2, "jobs.b": 1, "tasks": 1}
    assert "jobs.a" in headrace.done("stream", "info", "JOBS", "--subjects").out
    assert headrace("stream", "info", "NONE").code == 3


def interrupt(*_, **__):
    raise typer.Abort


def test_destroying_asks(headrace, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    for _ in range(5):
        headrace.done("pub", "orders", "x")
    headrace.done("consumer", "add", "orders", "c")
    for command in (["stream", "rm", "orders"], ["stream", "purge", "orders"], ["consumer", "rm", "orders", "c"]):
        result = headrace(*command)
        assert (result.code, result.out) == (2, "")
        assert "--yes" in result.err
    assert headrace.done("stream", "ls", "--json").json[0]["state"]["messages"] == 5
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code in ((lambda *_, **__: False, 1), (interrupt, 130)):
        monkeypatch.setattr("typer.confirm", answer)
        assert headrace("stream", "rm", "orders").code == code
    assert headrace.done("stream", "purge", "orders", "--keep", "2", "--yes", "--json").json["purged"] == 3
    assert headrace.done("consumer", "rm", "orders", "c", "-y", "--json").json == {"stream": "orders", "deleted": "c"}
    assert headrace.done("stream", "rm", "orders", "-y", "--json").json == {"deleted": "orders", "messages": 2}
    assert headrace("stream", "rm", "orders", "-y").code == 3


def test_consumers(headrace):
    for number in range(3):
        headrace.done("pub", "orders", number)
    made = headrace.done(
        "consumer", "add", "orders", "billing", "--filter", "orders", "--ack-wait", "5s", "--max-deliver", "3", "--json"
    ).json
    assert (made["name"], made["num_pending"]) == ("billing", 3)
    assert (made["config"]["ack_wait"], made["config"]["filter_subject"]) == (5.0, "orders")
    late = headrace.done(
        "consumer", "add", "orders", "late", "--deliver", "by_start_sequence", "--start-sequence", "3", "--json"
    ).json
    assert late["num_pending"] == 1
    assert [each["name"] for each in headrace.done("consumer", "ls", "orders", "--json").json] == ["billing", "late"]
    assert "billing" in headrace.done("consumer", "ls", "orders").out
    assert headrace.done("consumer", "info", "orders", "late", "--json").json["config"]["deliver_policy"] == (
        "by_start_sequence"
    )
    assert headrace("consumer", "info", "orders", "none").code == 3
    assert headrace("consumer", "ls", "none").code == 3
    assert headrace("consumer", "add", "none", "c").code == 3


def test_a_consumer_is_paused_and_resumed(headrace):
    headrace.done("pub", "orders", "x")
    headrace.done("consumer", "add", "orders", "c")
    assert headrace.done("consumer", "pause", "orders", "c", "--for", "2h", "--json").json["paused"]
    assert "paused until" in headrace.done("consumer", "info", "orders", "c").out
    assert headrace("consumer", "pause", "orders", "c").code == 2
    assert headrace("consumer", "pause", "orders", "c", "--for", "soon").code == 2
    resumed = headrace.done("consumer", "resume", "orders", "c", "--json").json
    assert (resumed["paused"], resumed["config"]["pause_until"]) == (False, None)
    assert headrace("consumer", "resume", "orders", "none").code == 3


def test_backup_and_restore(headrace, tmp_path):
    for number in range(10):
        headrace.done("pub", "orders", number)
    headrace.done("consumer", "add", "orders", "c")
    file, copy = tmp_path / "orders.hrbak", tmp_path / "copy"
    assert headrace.done("stream", "backup", file, "--json").json["messages"] == 10
    assert headrace("stream", "backup", file).code == 2
    assert headrace("stream", "backup", tmp_path / "other", "-s", "none").code == 3
    headrace.done("stream", "backup", file, "--overwrite", "-s", "orders")
    assert headrace.done("stream", "restore", file, "--json", url=copy).json["messages"] == 10
    assert headrace("stream", "restore", file, url=copy).code == 2
    assert len(headrace.done("tail", "orders", "--json", url=copy).lines) == 10
    assert [each["name"] for each in headrace.done("consumer", "ls", "orders", "--json", url=copy).json] == ["c"]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    file.write_bytes(damaged)
    assert headrace("stream", "restore", file, url=tmp_path / "third").code == 1
    assert not (tmp_path / "third").exists()


def test_bench(headrace):
    report = headrace.done("bench", "-n", "300", "--size", "50", "--json").json
    assert [result["name"].partition(",")[0] for result in report["results"]] == ["publish"] * 3 + ["consume"]
    assert all(result["per_second"] > 0 and result["cpu_us_per_message"] > 0 for result in report["results"])
    assert headrace.done("stream", "ls", "--json").json == []
    assert "CPU µs per message" in headrace.done("bench", "-n", "10", url=":memory:").out
