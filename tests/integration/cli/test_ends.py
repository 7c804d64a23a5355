"""How commands end: each exit code by a real command, and what a hostile shell does to its streams."""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from headrace.cli import publish
from headrace.cli.main import main
from tests.integration.cli.commands import SOURCE, Here, ended, make_repository, process

DEADLINE = 20


@pytest.fixture
def headrace(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    return Here(tmp_path / "data", capsys)


def one_line(result, code, said):
    assert result.code == code, result
    assert said in result.err
    assert result.err.startswith("headrace: ")
    assert len(result.err.splitlines()) == 1


def test_every_exit_code(headrace, tmp_path, capsys):
    headrace.done("pub", "orders", "x")  # 0
    headrace.done("stream", "add", "full", "--discard", "new", "--max-messages", "1")
    headrace.done("pub", "full", "x")
    one_line(headrace("pub", "full", "x"), 1, "maximum messages exceeded")
    one_line(headrace("pub", "a b", "x"), 2, "topic must be")
    one_line(headrace("get", "orders", "7"), 3, "no message found")
    descriptor = os.open(tmp_path / "data" / "locks" / "open", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # somebody opens the store, and never comes to an end
        code = main(["--timeout", "100ms", "pub", "orders", "x", "--url", str(tmp_path / "data")])
    finally:
        os.close(descriptor)
    assert code == 4
    assert capsys.readouterr().err.endswith("another process has held the lock 'open' for 0.1 s\n")
    with process("tail", "orders", "-f", "--url", headrace.url) as running:
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        one_line(ended(running), 130, "interrupted")


def test_unreachable_is_one_line(headrace, tmp_path, capsys, monkeypatch):
    headrace.done("pub", "orders", "x")
    monkeypatch.setenv("HEADRACE_TIMEOUT", "50ms")
    descriptor = os.open(tmp_path / "data" / "locks" / "open", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        one_line(headrace("stream", "add", "more"), 4, "another process has held the lock")
        headrace.done("stream", "ls")  # looking needs no lock
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_bench_stopped_leaves_no_stream(headrace, number):
    headrace.done("pub", "orders", "x")
    with process("bench", "-n", "10000000", "--url", headrace.url) as running:
        deadline = time.monotonic() + DEADLINE
        while len(headrace.done("stream", "ls", "--json").json) < 2:
            assert time.monotonic() < deadline
        running.send_signal(number)
        one_line(ended(running), 130, "interrupted")
    assert [each["config"]["name"] for each in headrace.done("stream", "ls", "--json").json] == ["orders"]


@pytest.mark.parametrize("options", [[], ["--whole"]])
def test_ctrl_c_while_a_named_pipe_has_no_writer(headrace, tmp_path, options):
    os.mkfifo(tmp_path / "pipe")
    impatient = threading.Thread(target=interrupt_where, args=(threading.get_ident(), publish._opened.__code__))
    impatient.start()
    one_line(headrace("pub", "orders", "--file", tmp_path / "pipe", *options), 130, "interrupted")
    impatient.join()
    assert not (tmp_path / "data").exists()


def interrupt_where(thread, code):
    """Once it stands there: before, a hook of a collector may be what is interrupted, and such errors are ignored."""
    deadline, looks = time.monotonic() + DEADLINE, 0
    while looks < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
        looks = looks + 1 if sys._current_frames()[thread].f_code is code else 0
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "said"),
    [
        ("<&-", ["pub", "orders"], 2, "headrace: standard input is closed: give a message or --file\n"),
        ("<&-", ["pub", "orders", "--whole"], 2, "headrace: standard input is closed: give a message or --file\n"),
        (">&-", ["stream", "ls"], 0, ""),
        (">&- 2>&- <&-", ["pub", "orders", "x"], 0, ""),
        (">/dev/full", ["stream", "ls"], 1, "headrace: No space left on device\n"),
    ],
)
def test_closed_streams(headrace, closed, arguments, code, said):
    headrace.done("pub", "orders", "1")
    command = [sys.executable, "-m", "headrace.cli.main", *arguments, "--url", headrace.url]
    running = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (running.returncode, running.stdout, running.stderr) == (code, "", said)
    assert len(headrace.done("tail", "orders", "--json").lines) == (2 if arguments[-1] == "x" else 1)
    assert headrace.done("doctor", "--json").json["healthy"] is True, "no stream was taken for a file of the store"


def test_every_command_prints_json(headrace, tmp_path):
    backup = tmp_path / "backup"
    for command in (
        ["pub", "orders", "1"],
        ["pub", "dead.orders", "\x1b[31mred \u202e"],
        ["stream", "add", "JOBS"],
        ["stream", "ls"],
        ["stream", "info", "orders", "--subjects"],
        ["stream", "backup", backup],
        ["consumer", "add", "orders", "c"],
        ["consumer", "ls", "orders"],
        ["consumer", "info", "orders", "c"],
        ["consumer", "rm", "orders", "c", "-y"],
        ["get", "orders"],
        ["tail", "orders", "-n", "1"],
        ["dead", "ls"],
        ["dead", "ls", "orders"],
        ["dead", "ls", "orders", "--by-error"],
        ["dead", "redrive", "payments", "--all"],
        ["bench", "-n", "10"],
        ["doctor"],
        ["stream", "purge", "orders", "-y"],
        ["stream", "rm", "JOBS", "-y"],
    ):
        json.loads(headrace.done(*command, "--json").out)
    json.loads(headrace.done("stream", "restore", backup, "--json", url=tmp_path / "copy").out)


def test_what_stdout_cannot_carry_is_escaped_and_json_stays_json(headrace, monkeypatch):
    text = "wörld 水 🌊"
    headrace.done("pub", "orders", json.dumps({"text": text}, ensure_ascii=False), "--key", "ключ")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for command in ("get", "tail"):
        shown = ended(process(command, "orders", "--url", headrace.url))
        assert (shown.code, shown.err) == (0, "")
        assert "w\\xf6rld \\u6c34 \\U0001f30a" in shown.out
        shown = ended(process(command, "orders", "--json", "--url", headrace.url))
        assert (shown.code, shown.err) == (0, "")
        assert json.loads(shown.json["body"]) == {"text": text}
        assert shown.json["key"] == "ключ"


def on_a_terminal(*arguments, answer=b"", interrupt=None, **environment):
    """Run a command on a pseudo terminal; what stands on it afterwards, and the exit code."""
    controller, terminal = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", *map(str, arguments)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm", "COLUMNS": "80", **environment},
    )
    os.close(terminal)
    try:
        if answer:
            os.write(controller, answer)
        shown, interrupted = b"", False
        while True:
            # Python misses a signal that comes right before it waits for a line: one presses Ctrl-C again
            if interrupted and not select.select([controller], [], [], 3)[0]:
                running.send_signal(signal.SIGINT)
                continue
            if not (chunk := read(controller)):
                break
            shown += chunk
            if interrupt is not None and interrupt in shown and not interrupted:
                running.send_signal(signal.SIGINT)
                interrupted = True
        return shown.decode(), running.wait(DEADLINE)
    finally:
        os.close(controller)


def read(controller):
    try:
        return os.read(controller, 65_536)
    except OSError:  # Linux says so when the last one has left the terminal
        return b""


def test_on_a_terminal(headrace):
    headrace.done("pub", "orders", "x")
    shown, code = on_a_terminal("stream", "ls", "--url", headrace.url)
    assert (code, "\x1b[1m" in shown, "orders.>" in shown) == (0, True, True)
    shown, code = on_a_terminal("stream", "ls", "--url", headrace.url, TERM="dumb")
    assert (code, "\x1b" in shown) == (0, False)
    shown, code = on_a_terminal("stream", "rm", "orders", "--url", headrace.url, answer=b"n\n")
    assert (code, "headrace: not done" in shown) == (1, True)
    shown, code = on_a_terminal("stream", "rm", "orders", "--url", headrace.url, interrupt=b"[y/N]")
    assert (code, "headrace: interrupted" in shown) == (130, True)
    shown, code = on_a_terminal("pub", "orders", "--url", headrace.url, answer=b"[1]\n\x04")
    assert (code, "Ctrl-D ends" in shown, "published 1 to orders" in shown) == (0, True, True)
    shown, code = on_a_terminal("stream", "rm", "orders", "--url", headrace.url, answer=b"y\n")
    assert (code, "deleted orders with 2 messages" in shown) == (0, True)


def test_the_demo_has_a_live_table_on_a_terminal_and_no_colour_where_none_is_wanted(tmp_path):
    repository = make_repository(tmp_path / "repository", commits=60, authors=3)
    shown, code = on_a_terminal("demo", "--repo", repository, "--dir", tmp_path / "state", NO_COLOR="1")
    assert code == 0
    for word in ("published", "handled", "retried", "dead", "rate", "lag", "nothing lost   60 published"):
        assert word in shown
    assert "\x1b[3" not in shown, "colours"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is shown again"


def test_ctrl_c_in_the_demo_on_a_terminal_shows_the_cursor_again_and_says_how_to_go_on(tmp_path):
    repository = make_repository(tmp_path / "repository", commits=800, authors=1)
    shown, code = on_a_terminal("demo", "--repo", repository, "--dir", tmp_path / "state", interrupt=b"handled")
    assert code == 130
    assert "run it again to go on" in shown
    assert "LOST" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "Traceback" not in shown
