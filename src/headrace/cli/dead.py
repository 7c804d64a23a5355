"""`headrace dead`: ls, show, redrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import typer

from headrace.cli.letters import Letter, Redriven, find, letter_topic, letters_of, redrive
from headrace.cli.opening import open_broker, open_streams, run, streams_of
from headrace.cli.options import DEFAULT_URL, Json, Url
from headrace.cli.output import cell, counting, print_document, print_facts, print_table, safe
from headrace.core.errors import ConfigError

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True)

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic whose messages died, or their dead.TOPIC.")]
Exact = Annotated[bool, typer.Option("--exact", help="TOPIC itself holds the letters; no dead. in front.")]


@commands.command("ls")
def ls(
    topic: Annotated[str | None, typer.Argument(help="The topic whose messages died; none = all below dead.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the oldest.")] = 100,
    exact: Exact = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List dead letters, the oldest first."""
    run(_ls(url, letter_topic(topic, exact=exact), limit, json=json))


async def _ls(url: str, topic: str, limit: int, *, json: bool) -> None:
    found: list[Letter] = []
    further = 0
    async with open_streams(url, look_only=True) as streams:
        async for letter in letters_of(streams, topic):
            if len(found) < limit:
                found.append(letter)
            else:
                further += 1
    if json:
        print_document([letter.facts() for letter in found])
        return
    print_table(
        ("id", "topic", "group", "attempts", "last", "reason"),
        (
            (letter.id, facts["source"], facts["group"], facts["attempts"], (facts["last"] or "")[:19], letter.reason)
            for letter in found
            for facts in (letter.facts(),)
        ),
        empty=f"no dead letters on {safe(topic)}",
    )
    if further:
        print(f"and {further:,} more (--limit)")


@commands.command()
def show(
    topic: Topic,
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the message that died, or of its letter.")],
    exact: Exact = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show one dead letter: why it died, and its message."""
    run(_show(url, letter_topic(topic, exact=exact), id, json=json))


async def _show(url: str, topic: str, id: str, *, json: bool) -> None:
    async with open_streams(url, look_only=True) as streams:
        found = await find(streams, topic, [id])
    if json:
        print_document([letter.facts() for letter in found])
        return
    for letter in found:
        facts = letter.facts()
        message = facts.pop("message")
        record = {name: value if isinstance(value, str) else cell(value) for name, value in facts.items()}
        print_facts(
            {
                **record,
                "stream": message["stream"],
                "sequence": message["sequence"],
                "key": message.get("key", message.get("key_base64")),
                "body": message.get("body", message.get("body_base64")),
            }
        )


@commands.command("redrive")
def redrive_letters(
    topic: Topic,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which ones.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    to: Annotated[str | None, typer.Option(help="Another topic than the one they came from.")] = None,
    rate: Annotated[float | None, typer.Option(help="At most so many a second.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    exact: Exact = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Send dead letters back to the topic they came from, and remove them."""
    if bool(ids) is everything:
        raise ConfigError("say which dead letters: their ids, or --all")
    wanted = letter_topic(topic, exact=exact)
    if dry_run:
        run(_dry_run(url, wanted, ids, json=json))
    else:
        run(_redrive(url, wanted, ids, to=to, rate=rate, json=json))


async def _dry_run(url: str, topic: str, ids: list[str] | None, *, json: bool) -> None:
    async with open_streams(url, look_only=True) as streams:
        found = await find(streams, topic, ids) if ids else [letter async for letter in letters_of(streams, topic)]
    if json:
        print_document({"topic": topic, "moved": 0, "skipped": 0, "would_move": [letter.id for letter in found]})
        return
    for letter in found:
        print(f"would go: {safe(letter.id)}  {safe(letter.reason)}")
    print(f"{len(found):,} dead letters on {safe(topic)}, nothing was moved")


async def _redrive(
    url: str, topic: str, ids: list[str] | None, *, to: str | None, rate: float | None, json: bool
) -> None:
    done = Redriven()
    try:
        async with open_broker(url, create=False) as broker:
            streams = streams_of(broker)
            letters = _each(await find(streams, topic, ids)) if ids else letters_of(streams, topic)
            with counting("redriving", len(ids) if ids else None) as count:
                async for _ in redrive(broker, letters, to=to, rate=rate, done=done):
                    count(1)
    finally:
        if json:
            print_document({"topic": topic, "moved": done.moved, "skipped": done.skipped})
        else:
            skipped = f", {done.skipped:,} skipped" if done.skipped else ""
            print(f"redrove {done.moved:,} dead letters of {safe(topic)}{skipped}")


async def _each(letters: list[Letter]) -> AsyncIterator[Letter]:
    for letter in letters:
        yield letter
