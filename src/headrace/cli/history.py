"""The history of a git repository, oldest commit first: the demo's input, which exists everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from headrace.cli.exits import NotFoundError
from headrace.core.errors import HeadraceError

__all__ = ["Commit", "commits", "count_commits"]

_RECORD = "\x1e"
_FIELD = "\x1f"
_FORMAT = _RECORD + "%H%x1f%at%x1f%ae%x1f%an%x1f%s"
_LONGEST_LINE = 16 << 20
_NOT_OURS = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}  # set while git runs a hook


class Commit(msgspec.Struct, frozen=True, gc=False):
    """One commit. ``time``: seconds since 1970; lines as ``git log --numstat`` counts them (binary files: none)."""

    id: str
    time: int
    email: str
    author: str
    subject: str
    files: int = 0
    added: int = 0
    deleted: int = 0


async def count_commits(repository: Path) -> int:
    """How many commits there are. ``NotFoundError``: no git, no repository, no commit."""
    async with _git(repository, "rev-list", "--count", "HEAD", "--") as process:
        output, errors = await process.communicate()
    if process.returncode:
        reason = errors.decode("utf-8", "replace").strip().partition("\n")[0]
        raise NotFoundError(f"no git history in {repository}: {reason or 'git failed'}")
    return int(output)


async def commits(repository: Path) -> AsyncGenerator[Commit, None]:
    """All commits that HEAD reaches, parents before children; read as git writes them."""
    options = ("--reverse", "--topo-order", "--numstat", "--no-ext-diff", "--no-textconv", "--no-color")
    async with _git(repository, "log", *options, f"--format={_FORMAT}") as process:
        assert process.stdout is not None  # noqa: S101  (a pipe was asked for)
        commit: Commit | None = None
        while line := await process.stdout.readline():
            text = line.decode("utf-8", "replace").rstrip("\n")
            if text.startswith(_RECORD):
                if commit is not None:
                    yield commit
                commit = _commit(text[len(_RECORD) :])
            elif commit is not None and text:
                commit = _with_file(commit, text)
        if commit is not None:
            yield commit
        if status := await process.wait():
            raise HeadraceError(
                f"git log ended with status {status} in {repository}: the history was not read to its end"
            )


@asynccontextmanager
async def _git(repository: Path, *arguments: str) -> AsyncGenerator[Process]:
    """A git in a session of its own, so that Ctrl-C is ours; it is gone at the end of the block."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            "-C",
            str(repository),
            "-c",
            "i18n.logOutputEncoding=UTF-8",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE if "--count" in arguments else asyncio.subprocess.DEVNULL,
            limit=_LONGEST_LINE,
            env={**environment, "LC_ALL": "C"},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise NotFoundError("git is not installed here: the demo reads the history of a repository with it") from error
    try:
        yield process
    finally:
        if process.stdout is not None and not process.stdout.at_eof():
            # not Process.kill(): that polls first, and so takes the exit status away from the loop's own watcher
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.communicate()  # takes the rest and closes the pipe


def _commit(text: str) -> Commit:
    fields = text.split(_FIELD, 4)
    commit_id, time, email, author, subject = (*fields, "", "", "", "", "")[:5]
    return Commit(commit_id, int(time or 0), email, author, subject)


def _with_file(commit: Commit, text: str) -> Commit:
    added, deleted, _ = (*text.split("\t", 2), "", "")[:3]
    return msgspec.structs.replace(
        commit,
        files=commit.files + 1,
        added=commit.added + (int(added) if added.isdigit() else 0),
        deleted=commit.deleted + (int(deleted) if deleted.isdigit() else 0),
    )
