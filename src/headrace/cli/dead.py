"""`headrace dead`: ls, show, redrive."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from headrace.cli import records
from headrace.cli.exits import ExitCode, NotFoundError
from headrace.cli.messages import Stored, body_text
from headrace.cli.opening import open_broker, run, streams_of
from headrace.cli.options import DEFAULT_URL, Json, Url
from headrace.cli.output import cell, counted, counting, print_document, print_facts, print_table, safe
from headrace.core.broker import Broker, SubscribeOptions
from headrace.core.errors import ConfigError
from headrace.core.message import check_topic
from headrace.deadletters.letters import ErrorGroup, Letter, RedriveReport
from headrace.deadletters.room import DeadLetters

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True)

_PREFIX = "dead."
_MOST_UNFINISHED = 100_000
"""Records of a partition; none of those that wait is kept in memory."""

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic whose messages died, or their dead.TOPIC.")]
Exact = Annotated[bool, typer.Option("--exact", help="TOPIC itself holds the letters; no dead. in front.")]


def letter_topic(topic: str, *, exact: bool) -> str:
    """Where the letters of `topic` are: ``dead.<topic>``, unless it is one already or `exact`."""
    check_topic(topic)
    return topic if exact or topic.startswith(_PREFIX) else _PREFIX + topic


@commands.command("ls")
def ls(
    topic: Annotated[str | None, typer.Argument(help="The topic whose messages died; none = count all topics.")] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the oldest.")] = 100,
    by_error: Annotated[bool, typer.Option("--by-error", help="Count them by error and reason.")] = False,
    exact: Exact = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List the dead letters of a topic, the oldest first; without a topic, the topics that have some."""
    if topic is None:
        run(_topics(url, json=json))
    elif by_error:
        run(_groups(url, letter_topic(topic, exact=exact), json=json))
    else:
        run(_ls(url, letter_topic(topic, exact=exact), limit, json=json))


async def _topics(url: str, *, json: bool) -> None:
    """Subjects below ``dead.``, with how many messages each has."""
    found: dict[str, int] = {}
    async with open_broker(url, look_only=True) as broker:
        if (kafka := records.kafka_of(broker)) is not None:
            for name in await records.topics(kafka, _PREFIX):
                spans = await records.spans_of(kafka, name)
                found[name] = sum(end - first for first, end in spans.values())
        else:
            streams = streams_of(broker)
            for name in [name async for name in streams.stream_names(subject=_PREFIX + ">")]:
                info = await (await streams.stream(name)).info(subject_filter=_PREFIX + ">")
                found.update(info.state.subjects)
    if json:
        print_document([{"topic": topic, "letters": found[topic]} for topic in sorted(found)])
    else:
        print_table(("topic", "letters"), sorted(found.items()), empty="no dead letters")


async def _is_there(broker: Broker, topic: str) -> bool:
    """A topic of Kafka is made by whoever means to read it, and looking must make none. Streams tell by themselves."""
    kafka = records.kafka_of(broker)
    return kafka is None or topic in await records.topics(kafka)


async def _groups(url: str, topic: str, *, json: bool) -> None:
    async with open_broker(url, look_only=True) as broker:
        found = await DeadLetters(broker, topic).by_error() if await _is_there(broker, topic) else []
    if json:
        print_document([_group_facts(group) for group in found])
        return
    print_table(
        ("letters", "first", "last", "error", "reason", "such as"),
        ((each.count, each.first, each.last, each.error, each.reason, each.example.id) for each in found),
        empty=f"no dead letters on {safe(topic)}",
    )


async def _ls(url: str, topic: str, limit: int, *, json: bool) -> None:
    async with open_broker(url, look_only=True) as broker:
        # one more tells whether there are more
        found = await DeadLetters(broker, topic).read(limit=limit + 1) if await _is_there(broker, topic) else []
    shown = found[:limit]
    if json:
        print_document([_facts(letter) for letter in shown])
        return
    print_table(
        ("id", "source", "group", "attempts", "last", "error", "reason"),
        ((each.id, each.source, each.group, each.attempts, each.last, each.error, each.reason) for each in shown),
        empty=f"no dead letters on {safe(topic)}",
    )
    if len(found) > limit:
        print(f"the oldest {limit:,}; there are more (--limit)")


@commands.command()
def show(
    topic: Topic,
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the message that died, or of its letter.")],
    *,
    exact: Exact = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show one dead letter: why it died, and its message."""
    letter = run(_show(url, letter_topic(topic, exact=exact), id))
    facts = _facts(letter)
    if json:
        print_document(facts)
        return
    message = facts.pop("message")
    key = message.get("key", message.get("key_base64"))
    print_facts({**facts, "stored": cell(str(letter.position)), "key": key})
    for name, value in message["headers"]:
        print(f"{safe(name)}: {safe(value)}")
    print()
    print(body_text(message))


async def _show(url: str, topic: str, id: str) -> Letter:
    async with open_broker(url, look_only=True) as broker:
        letter = await DeadLetters(broker, topic).get(id)
    if letter is None:
        raise NotFoundError(f"no dead letter {id!a} on {topic}")
    return letter


@commands.command()
def redrive(
    topic: Topic,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which ones.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    to: Annotated[str | None, typer.Option(help="Another topic than the one they came from.")] = None,
    rate: Annotated[float | None, typer.Option(help="At most so many a second.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Move nothing, only count.")] = False,
    exact: Exact = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Send dead letters back to the topic they came from, and remove them."""
    if bool(ids) is everything:
        raise ConfigError("say which dead letters: their ids, or --all")
    wanted = letter_topic(topic, exact=exact)
    if to == wanted:
        raise ConfigError(f"--to must not be the letters' own topic, got {to!a}")
    report = run(_redrive(url, wanted, set(ids or ()), to=to, rate=rate, dry_run=dry_run))
    if json:
        print_document({"topic": wanted, "dry_run": dry_run, "moved": report.moved, "failed": report.failed})
    else:
        letters = counted(report.moved, "dead letter")
        moved = f"{'would move' if dry_run else 'moved'} {letters} of {safe(wanted)}"
        print(moved + (f"; {report.failed:,} were refused and stay" if report.failed else ""))
    if report.failed:
        raise typer.Exit(ExitCode.FAILED)


async def _redrive(
    url: str, topic: str, ids: set[str], *, to: str | None, rate: float | None, dry_run: bool
) -> RedriveReport:
    async with open_broker(url, look_only=dry_run, create=False) as broker:
        if not await _is_there(broker, topic):
            return RedriveReport(0, 0, 0)
        letters = DeadLetters(broker, topic, subscribe=_reading(broker))
        for each in ids:
            if await letters.get(each) is None:
                raise NotFoundError(f"no dead letter {each!a} on {topic}")
        met: set[str] = set()
        with counting("redriving", len(ids) or None) as count:

            def wanted(letter: Letter) -> bool:
                chosen = {letter.id, letter.message.id} & ids
                met.update(chosen)
                count(not ids or bool(chosen))
                return not ids or bool(chosen)

            report = await letters.redrive(where=wanted, to=to, rate=rate, dry_run=dry_run)
        if not_met := sorted(ids - met):  # a log keeps what was redriven
            gone = ", ".join(map(ascii, not_met))
            raise NotFoundError(f"redriven before: {gone} on {topic} ({counted(report.moved, 'other')} moved)")
        return report


def _reading(broker: Broker) -> SubscribeOptions:
    """On Kafka what stays keeps its partition's records unfinished: as many as a commit can remember may be.

    Retention may have taken what the group stood at.
    """
    if records.kafka_of(broker) is None:
        return SubscribeOptions()
    from headrace.kafka.reading import KafkaSubscribeOptions

    return KafkaSubscribeOptions(max_span=_MOST_UNFINISHED, max_span_bytes=sys.maxsize, on_out_of_range="earliest")


def _facts(letter: Letter) -> dict[str, Any]:
    """A letter for JSON: its record, and the message as it is stored."""
    position = letter.position
    stored = Stored(position.source if position else "", position.value if position else 0, letter.message)
    return {
        "id": letter.id,
        "source": letter.source,
        "group": letter.group,
        "attempts": letter.attempts,
        "error": letter.error,
        "reason": letter.reason,
        "time": letter.time,
        "first": letter.first,
        "last": letter.last,
        "passes": letter.passes,
        "message": stored.facts(),
    }


def _group_facts(group: ErrorGroup) -> dict[str, Any]:
    return {
        "error": group.error,
        "reason": group.reason,
        "letters": group.count,
        "first": group.first,
        "last": group.last,
        "example": group.example.id,
    }
