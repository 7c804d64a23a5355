"""How URLs and lengths of time are read, and who is asked before something is destroyed."""

from datetime import timedelta

import pytest

from headrace.cli.options import confirm, directory_of, duration_of, is_directory, shown
from headrace.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1.5s", 1.5), ("5m", 300), ("2h", 7_200), ("7d", 604_800), ("42", 42), (" 3 s ", 3)],
)
def test_lengths_of_time(text, seconds):
    assert duration_of(text, "--max-age") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "x", "-1s", "1w", "1e3", "nan", "inf", "5 minutes", "99999999999d", "1s\n;"])
def test_what_is_no_length_of_time_is_refused_by_its_option(text):
    with pytest.raises(ConfigError, match="--max-age"):
        duration_of(text, "--max-age")


def test_no_length_of_time_is_none():
    assert duration_of(None, "--max-age") is None


@pytest.mark.parametrize(
    ("url", "answer"),
    [("./data", True), ("data", True), ("/x", True), (":memory:", False), ("nats://h", False), ("kafka://a,b", False)],
)
def test_what_is_a_directory(url, answer):
    assert is_directory(url) is answer


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("./a@b", "./a@b"), ("nats://a,b:4223", "nats://a,b:4223"), ("nats://u:s3cret@a", "nats://…@a"),
        ("tls://s3cret@a:1,u:s3cret@b", "tls://…@b"), ("nats://u:s3/cr,et@x", "nats://…@x"),
    ],
)  # fmt: skip
def test_what_may_be_printed_of_a_url(url, wanted):
    assert shown(url) == wanted


def test_a_command_for_directories_names_the_url_it_cannot_use():
    with pytest.raises(ConfigError, match="nats://h"):
        directory_of("nats://h", "restore")


def test_where_nobody_can_be_asked_yes_is_needed(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    confirm("Sure?", yes=True)
    with pytest.raises(ConfigError, match="--yes"):
        confirm("Sure?", yes=False)
