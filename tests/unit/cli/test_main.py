"""Bad input ends in one line and the right code; nothing is opened for it."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from headrace.cli.main import main

COMMANDS = [
    ["stream", "add"], ["stream", "ls"], ["stream", "info"], ["stream", "rm"], ["stream", "purge"],
    ["stream", "backup"], ["stream", "restore"], ["consumer", "add"], ["consumer", "ls"], ["consumer", "info"],
    ["consumer", "rm"], ["pub"], ["tail"], ["get"], ["dead", "ls"], ["dead", "show"], ["dead", "redrive"], ["bench"],
    ["doctor"], ["demo"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    yield
    assert list(tmp_path.iterdir()) == [], "bad input wrote something"


def test_every_command_has_help_and_json(capsys):
    for command in COMMANDS:
        assert main([*command, "--help"]) == 0
        out = capsys.readouterr().out
        assert "--json" in out, command
        assert "--url" in out, command


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["--timeout", "soon", "stream", "ls"],
        ["stream", "backup", "a", "b"],
        ["pub", "orders", "--file", "."],
        ["pub", "orders", "--file", ".", "--whole"],
        ["pub"],
        ["pub", "orders", "x", "--file", "x"],
        ["pub", "orders", "x", "--header", "no colon"],
        ["pub", "orders", "x", "--header", "Bad Name: x"],
        ["pub", "orders.*", "x"],
        ["pub", "orders/../x y", "x"],
        ["pub", "orders\0", "x"],
        ["pub", "", "x"],
        ["pub", "orders", "x", "--id", ""],
        ["pub", "orders", "x", "--id", "a\nb"],
        ["stream", "add"],
        ["stream", "add", "../x"],
        ["stream", "add", "a/b"],
        ["stream", "add", "x", "--max-messages", "0"],
        ["stream", "add", "x", "--max-age", "soon"],
        ["stream", "add", "x", "--retention", "never"],
        ["stream", "add", "x", "-s", "a.>", "-s", "a.b"],
        ["stream", "purge", "x", "--sequence", "3", "--keep", "3"],
        ["stream", "purge", "x", "--keep", "-1"],
        ["stream", "restore", "x", "--url", ":memory:"],
        ["consumer", "add", "s", "a.b"],
        ["consumer", "add", "s", "c", "--start-sequence", "3"],
        ["consumer", "add", "s", "c", "--ack-wait", "x"],
        ["tail", "orders", "--lines", "-1"],
        ["tail", "orders", "--lines", "99999999999999999999"],
        ["get", "orders", "0"],
        ["get", "orders", "five"],
        ["dead", "ls", "a b"],
        ["dead", "redrive", "orders"],
        ["dead", "redrive", "orders", "some-id", "--all"],
        ["bench", "--messages", "0"],
        ["demo", "--dir", "a", "--url", "b"],
        ["demo", "--limit", "0"],
    ],
    ids=" ".join,
)
def test_bad_input_is_usage_and_one_line(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headrace: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["stream"], ["consumer"], ["dead"]])
def test_no_command_is_answered_with_help(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert "Usage" in out + err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["stream", "ls"], 3),
        (["tail", "orders"], 3),
        (["get", "orders"], 3),
        (["dead", "ls", "orders"], 3),
        (["consumer", "ls", "s"], 3),
        (["stream", "rm", "s", "--yes"], 3),
        (["stream", "ls", "--url", "gopher://x"], 2),
        (["pub", "orders", "x", "--url", "gopher://x"], 2),
        (["pub", "orders", "--file", "missing"], 3),
        (["pub", "orders", "--file", "missing", "--whole"], 3),
        (["stream", "backup", "missing/file"], 3),
        (["stream", "restore", "missing"], 3),
        (["doctor", "--url", "nats://127.0.0.1:1"], 4),
        (["bench", "--url", "sqs://eu-west-1"], 2),
        (["demo", "--url", "nats://127.0.0.1:1", "--repo", os.fspath(Path(__file__).parents[3])], 4),
    ],
)
def test_looking_makes_no_store(arguments, code, capsys):
    assert main(arguments) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("url", ["sqs://eu-west-1"])
def test_an_engine_that_is_not_built_yet_is_said_in_one_line(url, capsys):
    assert main(["stream", "ls", "--url", url]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("engine is not built yet in this version of headrace\n")


@pytest.mark.parametrize("option", ["-h", "--help", "--version"])
def test_help_and_version(option, capsys):
    assert main([option]) == 0
    out, err = capsys.readouterr()
    assert ("Usage" in out) == (option != "--version")
    assert (out == f"headrace {version('headrace')}\n") == (option == "--version")
    assert err == ""


def test_ctrl_c_while_it_is_still_starting(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("headrace.cli.main.build", interrupted)
    assert main(["stream", "ls"]) == 130
    assert capsys.readouterr().err == "headrace: interrupted\n"


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["stream", "ls"]) == 1
    assert capsys.readouterr().err == "headrace: the command line needs typer: pip install 'headrace[cli]'\n"


def test_no_traceback_for_a_fault_of_ours(monkeypatch, capsys):
    def broken(url):
        raise ZeroDivisionError("boom\nboom")

    monkeypatch.setattr("headrace.cli.doctor.is_directory", broken)
    assert main(["doctor"]) == 1
    err = capsys.readouterr().err
    assert err == "headrace: ZeroDivisionError: boom boom (a fault of headrace; HEADRACE_DEBUG=1 shows where)\n"
    monkeypatch.setenv("HEADRACE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])
