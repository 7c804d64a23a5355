"""What died is listed, shown, and sent back."""

import asyncio
import json

import pytest

from headrace.connect import connect
from headrace.core.delivery import Delivery
from headrace.core.errors import RejectError
from headrace.core.message import Message
from headrace.flow.judge import DeadLetter
from headrace.flow.worker import Worker
from tests.integration.cli.commands import Here


@pytest.fixture
def headrace(tmp_path, capsys):
    return Here(tmp_path / "data", capsys)


def let_die(url, count):
    """So many orders that a handler refuses, every second one for another reason."""

    async def refuse(delivery: Delivery) -> None:
        raise RejectError("even" if json.loads(delivery.message.body)["id"] % 2 == 0 else "odd\x1b[31m")

    async def run():
        async with connect(url) as broker:
            for number in range(count):
                body = json.dumps({"id": number}).encode()
                await broker.publish(Message(topic="orders", body=body, key=b"k", id=f"order-{number}"))
            async with Worker(broker, "orders", refuse, group="billing", on_exhausted=DeadLetter()) as worker:
                while worker.stats.dead_lettered < count:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def ids(printed):
    return [letter["id"] for letter in printed.json]


def test_list_show_and_redrive(headrace):
    let_die(headrace.url, 4)
    assert headrace.done("dead", "ls", "--json").json == [{"topic": "dead.orders", "letters": 4}]
    listed = headrace.done("dead", "ls", "orders", "--json")
    assert ids(listed) == ["order-0", "order-1", "order-2", "order-3"]
    first = listed.json[0]
    assert (first["source"], first["group"], first["attempts"], first["passes"]) == ("orders", "billing", 1, 1)
    assert (first["error"], first["reason"]) == ("headrace.core.errors.RejectError", "even")
    assert (first["message"]["key"], first["message"]["body"]) == ("k", '{"id": 0}')
    assert headrace.done("dead", "show", "orders", "order-0", "--json").json == first
    assert headrace.done("dead", "show", "dead.orders", first["message"]["id"], "--json").json == first
    groups = headrace.done("dead", "ls", "orders", "--by-error", "--json").json
    assert {each["reason"]: each["letters"] for each in groups} == {"even": 2, "odd\\x1b[31m": 2}

    assert headrace.done("dead", "redrive", "orders", "--all", "--dry-run", "--json").json["moved"] == 4
    assert len(ids(headrace.done("dead", "ls", "orders", "--json"))) == 4
    assert headrace.done("dead", "redrive", "orders", "order-1", "order-2", "--json").json == {
        "topic": "dead.orders", "dry_run": False, "moved": 2, "failed": 0,
    }  # fmt: skip
    assert ids(headrace.done("dead", "ls", "orders", "--json")) == ["order-0", "order-3"]
    assert (
        headrace.done("dead", "redrive", "orders", "--all", "--to", "again").out
        == "moved 2 dead letters of dead.orders\n"
    )
    assert headrace.done("dead", "ls", "orders", "--json").json == []
    back = headrace.done("tail", "orders", "-n", "2", "--json").lines
    assert [(line["id"], line["body"]) for line in back] == [("order-1.r1", '{"id": 1}'), ("order-2.r1", '{"id": 2}')]
    assert len(headrace.done("tail", "again", "--json").lines) == 2


def test_for_people(headrace):
    let_die(headrace.url, 2)
    out = headrace.done("dead", "ls", "orders", "-n", "1").out
    assert "order-0" in out
    assert "there are more" in out
    assert "\x1b" not in headrace.done("dead", "ls", "orders").out
    shown = headrace.done("dead", "show", "orders", "order-1").out
    assert '{"id": 1}' in shown
    assert "\x1b" not in shown
    assert "dead.orders" in headrace.done("dead", "ls").out


def test_what_is_not_there(headrace):
    let_die(headrace.url, 1)
    assert headrace("dead", "show", "orders", "order-7").code == 3
    assert headrace("dead", "redrive", "orders", "order-0", "order-7").code == 3
    assert ids(headrace.done("dead", "ls", "orders", "--json")) == ["order-0"], "one missing, none moved"
    assert headrace.done("dead", "ls", "payments").out == "no dead letters on dead.payments\n"
    assert headrace("dead", "redrive", "orders", "--all", "--to", "dead.orders").code == 2
    assert headrace("dead", "redrive", "orders", "--all", "--rate", "0").code == 2


def test_what_is_no_dead_letter_stays(headrace):
    headrace.done("pub", "dead.orders", "a stranger")
    result = headrace("dead", "redrive", "orders", "--all", "--json")
    assert (result.code, result.json["moved"], result.json["failed"]) == (1, 0, 1)
    assert len(headrace.done("dead", "ls", "orders", "--json").json) == 1
