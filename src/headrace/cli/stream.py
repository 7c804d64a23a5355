"""`headrace stream`: add, ls, info, rm, purge, backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from headrace.cli.exits import NotFoundError
from headrace.cli.opening import open_streams, run
from headrace.cli.options import (
    DEFAULT_URL,
    Json,
    Url,
    Yes,
    confirm,
    directory_of,
    duration_of,
    is_embedded,
    shown,
)
from headrace.cli.output import cell, console, counted, print_document, print_facts, print_table
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.config import DiscardPolicy, PurgeOptions, RetentionPolicy, StreamConfig
from headrace.streams.info import StreamInfo

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the stream.")]
Count = Annotated[int | None, typer.Option(min=1)]
Length = Annotated[str | None, typer.Option(metavar="TIME", help="Such as 500ms, 10s, 5m, 2h, 7d.")]


@commands.command()
def add(
    name: Name,
    *,
    subject: Annotated[list[str] | None, typer.Option("--subject", "-s", help="What it stores; else its name.")] = None,
    description: Annotated[str | None, typer.Option()] = None,
    retention: Annotated[RetentionPolicy, typer.Option()] = RetentionPolicy.LIMITS,
    discard: Annotated[DiscardPolicy, typer.Option(help="What goes at a limit.")] = DiscardPolicy.OLD,
    max_messages: Count = None,
    max_messages_per_subject: Count = None,
    max_bytes: Count = None,
    max_message_size: Count = None,
    max_age: Length = None,
    duplicate_window: Length = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Make a stream; an equal one is fine, a different one of this name is refused."""
    config = StreamConfig(
        name=name,
        subjects=subject or (),
        description=description,
        retention=retention,
        discard=discard,
        max_messages=max_messages,
        max_messages_per_subject=max_messages_per_subject,
        max_bytes=max_bytes,
        max_message_size=max_message_size,
        max_age=duration_of(max_age, "--max-age"),
        duplicate_window=duration_of(duplicate_window, "--duplicate-window"),
    )
    run(_add(url, config, json=json))


async def _add(url: str, config: StreamConfig, *, json: bool) -> None:
    async with open_streams(url) as streams:
        stream = await streams.create_stream(config)
        _print_info(await stream.info(), json=json)


@commands.command("ls")
def ls(
    subject: Annotated[str | None, typer.Option(help="Only those that overlap it.")] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List the streams."""
    run(_ls(url, subject, json=json))


async def _ls(url: str, subject: str | None, *, json: bool) -> None:
    async with open_streams(url, look_only=True) as streams:
        found = [info async for info in streams.list_streams(subject=subject)]
    if json:
        print_document(found)
        return
    print_table(
        ("name", "subjects", "messages", "bytes", "consumers", "last message"),
        (
            (
                info.config.name,
                tuple(info.config.subjects),
                info.state.messages,
                info.state.bytes,
                info.state.consumers,
                info.state.last_time,
            )
            for info in found
        ),
        empty="no streams",
    )


@commands.command()
def info(
    name: Name,
    subjects: Annotated[bool, typer.Option("--subjects", help="Count the messages of each subject.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show one stream: its limits and what is in it."""
    run(_info(url, name, subjects=subjects, json=json))


async def _info(url: str, name: str, *, subjects: bool, json: bool) -> None:
    async with open_streams(url, look_only=True) as streams:
        stream = await streams.stream(name)
        _print_info(await stream.info(subject_filter=">" if subjects else None), json=json)


@commands.command("rm")
def rm(name: Name, yes: Yes = False, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Delete a stream with its messages and consumers."""
    run(_rm(url, name, yes=yes, json=json))


async def _rm(url: str, name: str, *, yes: bool, json: bool) -> None:
    async with open_streams(url, create=False) as streams:
        state = (await (await streams.stream(name)).info()).state
        held = f"{counted(state.messages, 'message')} and {counted(state.consumers, 'consumer')}"
        confirm(f"Delete stream {name!a} with {held}?", yes=yes)
        await streams.delete_stream(name)
    text = f"deleted {name} with {counted(state.messages, 'message')}"
    _done({"deleted": name, "messages": state.messages}, text, json=json)


@commands.command()
def purge(
    name: Name,
    *,
    subject: Annotated[str | None, typer.Option(help="Only messages on it (wildcards allowed).")] = None,
    sequence: Annotated[int | None, typer.Option(help="Only messages before this sequence.")] = None,
    keep: Annotated[int | None, typer.Option(help="All but the newest so many.")] = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Delete messages of a stream; its consumers stay."""
    run(_purge(url, name, PurgeOptions(subject=subject, sequence=sequence, keep=keep), yes=yes, json=json))


async def _purge(url: str, name: str, options: PurgeOptions, *, yes: bool, json: bool) -> None:
    async with open_streams(url, create=False) as streams:
        stream = await streams.stream(name)
        held = (await stream.info()).state.messages
        confirm(f"Purge stream {name!a}, which has {counted(held, 'message')}?", yes=yes)
        purged = await stream.purge(options)
    _done({"stream": name, "purged": purged}, f"purged {counted(purged, 'message')} of {name}", json=json)


@commands.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    stream: Annotated[list[str] | None, typer.Option("--stream", "-s", help="Only this one (may repeat).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Write streams and consumers to one file, as of one moment, while others go on publishing."""
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} is there already; --overwrite replaces it")
    if not file.absolute().parent.is_dir():
        raise NotFoundError(f"there is no directory {file.parent} to write {file.name} to")
    run(_backup(url, file, stream or None, overwrite=overwrite, json=json))


async def _backup(url: str, file: Path, names: list[str] | None, *, overwrite: bool, json: bool) -> None:
    if not is_embedded(url):
        raise UnsupportedError(f"backup works on a directory, got --url {shown(url)!a}")
    async with open_streams(url, look_only=True) as streams:
        engine = cast("Any", streams)
        for name in names or ():
            await streams.stream(name)
        with console(err=True).status("backing up"):
            report = await engine.backup(file, streams=names, overwrite=overwrite)
    _report(report, f"backed up to {file}", json=json)


@commands.command()
def restore(
    file: Annotated[Path, typer.Argument(help="File that `backup` wrote.")],
    stream: Annotated[list[str] | None, typer.Option("--stream", "-s", help="Only this one (may repeat).")] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Make the directory of --url from a backup; it must be empty or missing. All or nothing."""
    target = directory_of(url, "restore")
    if not file.is_file():
        raise NotFoundError(f"there is no backup file {file}")
    run(_restore(target, file, stream or None, json=json))


async def _restore(target: Path, file: Path, names: list[str] | None, *, json: bool) -> None:
    from headrace.embedded import restore as restore_store

    with console(err=True).status("restoring"):
        report = await restore_store(file, target, streams=names)
    _report(report, f"restored {file} to {target}", json=json)


def _report(report: Any, text: str, *, json: bool) -> None:
    held = f"{counted(len(report.streams), 'stream')}, {counted(report.messages, 'message')}"
    _done(report, f"{text}: {held}, {counted(report.bytes, 'byte')}, sha256 {report.sha256}", json=json)


def _done(facts: object, text: str, *, json: bool) -> None:
    if json:
        print_document(facts)
    else:
        print(cell(text))


def _print_info(found: StreamInfo, *, json: bool) -> None:
    if json:
        print_document(found)
        return
    state = found.state
    print_facts(
        {
            "name": found.config.name,
            "description": found.config.description,
            "subjects": tuple(found.config.subjects),
            "retention": found.config.retention,
            "discard": found.config.discard,
            "max messages": found.config.max_messages,
            "max per subject": found.config.max_messages_per_subject,
            "max bytes": found.config.max_bytes,
            "max message size": found.config.max_message_size,
            "max age": found.config.max_age,
            "duplicate window": found.config.duplicate_window,
            "created": found.created,
            "messages": state.messages,
            "bytes": state.bytes,
            "first": f"{state.first_sequence}  {cell(state.first_time)}",
            "last": f"{state.last_sequence}  {cell(state.last_time)}",
            "deleted between": state.num_deleted,
            "subjects used": state.num_subjects,
            "consumers": state.consumers,
            **{f"  {cell(subject)}": count for subject, count in state.subjects.items()},
        }
    )
