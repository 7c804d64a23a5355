"""`headrace consumer`: add, ls, info, pause, resume, rm."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from headrace.cli.opening import open_streams, run
from headrace.cli.options import DEFAULT_URL, Json, Url, Yes, confirm, duration_of
from headrace.cli.output import print_document, print_facts, print_table, safe
from headrace.streams.config import AckPolicy, ConsumerConfig, DeliverPolicy
from headrace.streams.info import ConsumerInfo
from headrace.streams.msg import time_of_ns

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True)

StreamName = Annotated[str, typer.Argument(metavar="STREAM", help="Name of its stream.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the consumer.")]


@commands.command()
def add(
    stream: StreamName,
    name: Name,
    *,
    filter_subject: Annotated[list[str] | None, typer.Option("--filter", "-f", help="Only messages on it.")] = None,
    deliver: Annotated[DeliverPolicy, typer.Option(help="Where it begins.")] = DeliverPolicy.ALL,
    start_sequence: Annotated[int | None, typer.Option(min=1, help="With --deliver by_start_sequence.")] = None,
    ack: Annotated[AckPolicy, typer.Option(help="What an acknowledgement covers.")] = AckPolicy.EXPLICIT,
    ack_wait: Annotated[str | None, typer.Option(metavar="TIME", help="Until it comes again: 30s, 5m …")] = None,
    max_deliver: Annotated[int | None, typer.Option(min=1)] = None,
    max_ack_pending: Annotated[int, typer.Option(min=1)] = 1000,
    description: Annotated[str | None, typer.Option()] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Make a durable consumer; an equal one is fine, a different one of this name is refused."""
    filters = filter_subject or []
    config = ConsumerConfig(
        durable=name,
        description=description,
        deliver_policy=deliver,
        start_sequence=start_sequence,
        ack_policy=ack,
        ack_wait=duration_of(ack_wait, "--ack-wait"),
        max_deliver=max_deliver,
        max_ack_pending=max_ack_pending,
        filter_subject=filters[0] if len(filters) == 1 else None,
        filter_subjects=filters if len(filters) > 1 else (),
    )
    run(_add(url, stream, config, json=json))


async def _add(url: str, stream: str, config: ConsumerConfig, *, json: bool) -> None:
    async with open_streams(url, create=False) as streams:
        consumer = await streams.create_consumer(stream, config)
        _print_info(await consumer.info(), json=json)


@commands.command("ls")
def ls(stream: StreamName, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List the consumers of a stream, with what each has still to do."""
    run(_ls(url, stream, json=json))


async def _ls(url: str, stream: str, *, json: bool) -> None:
    async with open_streams(url, look_only=True) as streams:
        found = [info async for info in (await streams.stream(stream)).list_consumers()]
    if json:
        print_document(found)
        return
    print_table(
        ("name", "filter", "done up to", "delivered up to", "not settled", "waiting", "delivered again"),
        (
            (
                info.name,
                info.config.filters,
                info.ack_floor.stream,
                info.delivered.stream,
                info.num_ack_pending,
                info.num_pending,
                info.num_redelivered,
            )
            for info in found
        ),
        empty=f"no consumers in {safe(stream)}",
    )


@commands.command()
def info(stream: StreamName, name: Name, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show one consumer: how it is set up and how far it is."""
    run(_info(url, stream, name, json=json))


async def _info(url: str, stream: str, name: str, *, json: bool) -> None:
    async with open_streams(url, look_only=True) as streams:
        consumer = await streams.consumer(stream, name)
        _print_info(await consumer.info(), json=json)


@commands.command()
def pause(
    stream: StreamName,
    name: Name,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30s, 5m, 2h …")],
    *,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Hand out nothing for so long, to no reader; pulls stay open. Its messages wait."""
    run(_pause(url, stream, name, duration_of(length, "--for"), json=json))


@commands.command()
def resume(stream: StreamName, name: Name, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Hand out again what a pause has held up."""
    run(_pause(url, stream, name, None, json=json))


async def _pause(url: str, stream: str, name: str, length: timedelta | None, *, json: bool) -> None:
    async with open_streams(url, create=False) as streams:
        consumer = await streams.consumer(stream, name)
        if length is None:
            await consumer.resume()
        else:
            await consumer.pause(time_of_ns(streams.clock.now_ns()) + length)
        _print_info(await consumer.info(), json=json)


@commands.command("rm")
def rm(stream: StreamName, name: Name, yes: Yes = False, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Delete a consumer: its place is forgotten, the messages stay."""
    run(_rm(url, stream, name, yes=yes, json=json))


async def _rm(url: str, stream: str, name: str, *, yes: bool, json: bool) -> None:
    async with open_streams(url, create=False) as streams:
        await streams.consumer(stream, name)
        confirm(f"Delete consumer {name!a} of stream {stream!a}? Its place is forgotten.", yes=yes)
        await streams.delete_consumer(stream, name)
    if json:
        print_document({"stream": stream, "deleted": name})
    else:
        print(f"deleted {safe(name)} of {safe(stream)}")


def _print_info(found: ConsumerInfo, *, json: bool) -> None:
    if json:
        print_document(found)
        return
    config = found.config
    print_facts(
        {
            "stream": found.stream,
            "name": found.name,
            "description": config.description,
            "filter": config.filters,
            "begins at": config.deliver_policy,
            "acknowledges": config.ack_policy,
            "ack wait": config.waits,
            "max deliver": config.max_deliver,
            "max ack pending": config.max_ack_pending,
            "paused until": config.pause_until if found.paused else None,
            "created": found.created,
            "done up to": found.ack_floor.stream,
            "delivered up to": found.delivered.stream,
            "not settled": found.num_ack_pending,
            "delivered again": found.num_redelivered,
            "waiting": found.num_pending,
        }
    )
