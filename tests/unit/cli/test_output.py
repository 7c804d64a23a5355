"""What is printed: JSON that machines read back, and text of strangers that does nothing to the terminal."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import msgspec
import pytest

from headrace.cli.messages import Stored
from headrace.cli.output import (
    builtins_of,
    cell,
    counted,
    counting,
    print_document,
    print_facts,
    print_line,
    print_table,
    safe,
)
from headrace.core.headers import Headers
from headrace.core.message import Message


class Colour(Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int


@dataclass
class Everything:
    wait: timedelta
    at: datetime
    colour: Colour
    points: tuple[Point, ...]
    named: dict[str, timedelta]
    nothing: None = None


EVERYTHING = Everything(
    timedelta(milliseconds=1500), datetime(2026, 1, 2, tzinfo=UTC), Colour.RED, (Point(1),), {"a": timedelta(seconds=2)}
)
PLAIN = {
    "wait": 1.5,
    "at": "2026-01-02T00:00:00+00:00",
    "colour": "red",
    "points": [{"x": 1}],
    "named": {"a": 2.0},
    "nothing": None,
}


def test_builtins():
    assert builtins_of(EVERYTHING) == PLAIN


def test_a_document_is_json(capsys):
    print_document(EVERYTHING)
    assert json.loads(capsys.readouterr().out) == PLAIN


def test_lines_are_json_lines(capsys):
    print_line({"a": 1})
    print_line({"a": "two\nlines"})
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": 1}, {"a": "two\nlines"}]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 水", "plain äöü 水"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\r\nb\x00", "a\\r\\nb\\x00"),
        ("\u202eevil", "\\u202eevil"),
        ("\udcff", "\\udcff"),
    ],
)
def test_text_of_strangers_is_shown_not_done(text, shown):
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "yes"), (1234567, "1,234,567"), (Colour.RED, "red"), ((), "-"), ([1, "b"], "1, b")],
)
def test_cells(value, text):
    assert cell(value) == text


def test_a_table_without_a_terminal_is_never_cut(capsys):
    print_table(("name", "n"), [("x" * 500, 1), ("[red]y[/red]", 22)], empty="none")
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "n"]
    assert first.split() == ["x" * 500, "1"]
    assert second.split() == ["[red]y[/red]", "22"]


def test_on_a_narrow_terminal_text_gives_way_and_numbers_do_not(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    at = datetime(2026, 1, 2, 12, tzinfo=UTC)
    print_table(("name", "delivered up to", "last message"), [("x" * 80, 1234567, at)], empty="none")
    out = capsys.readouterr().out
    assert "1,234,567" in out
    assert cell(at) in out
    assert out.count("x") == 80


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 messages"), (1, "1 message"), (2, "2 messages"), (1000, "1,000 messages")]
)
def test_counted(number, text):
    assert counted(number, "message") == text


def test_an_empty_table_says_so(capsys):
    print_table(("name",), [], empty="no streams")
    assert capsys.readouterr().out == "no streams\n"


def test_facts_leave_out_what_is_none(capsys):
    print_facts({"a": 1, "long name": "x", "b": None})
    assert capsys.readouterr().out == "a          1\nlong name  x\n"


def test_no_bar_where_there_is_no_terminal(capsys):
    with counting("x", 10) as count:
        count(5)
    assert capsys.readouterr() == ("", "")


def test_a_message_as_facts():
    message = Message(topic="orders", body=b"\xff", key=b"k", headers=Headers([("A", "1"), ("A", b"\xff")]), id="7")
    facts = Stored("orders", 3, message).facts()
    del facts["time"]
    assert facts == {
        "stream": "orders",
        "sequence": 3,
        "topic": "orders",
        "id": "7",
        "key": "k",
        "headers": [["A", "1"], ["A", "\\xff"]],
        "body_base64": "/w==",
    }


def test_a_message_on_one_line():
    message = Message(topic="orders", body=b'{"a":\n"\x1b[0m"}', key=b"k")
    line = Stored("orders", 3, message).line()
    assert line.endswith('orders  key=k  {"a":\\n"\\x1b[0m"}')
    assert "\n" not in line
