"""`headrace demo`: the git history of a repository as a stream of events, handled durably and in order per author."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import typer
from rich.live import Live
from rich.table import Table

from headrace.cli import records
from headrace.cli.exits import ExitCode
from headrace.cli.history import Commit, commits, count_commits
from headrace.cli.opening import open_broker, run
from headrace.cli.options import Json, shown
from headrace.cli.output import console, counted, print_document, safe
from headrace.cli.proof import COMMITS, DEAD, HANDLED, Handled, Ledger, commit_of, read_ledger
from headrace.core.broker import Broker, SubscribeOptions
from headrace.core.delivery import Delivery
from headrace.core.errors import ConfigError, PublishError, RejectError
from headrace.core.message import Message
from headrace.flow import letter
from headrace.flow.judge import DeadLetter, FailureEvent, FailureStage
from headrace.flow.retry import RetryPolicy
from headrace.flow.signals import on_stop_signal
from headrace.flow.worker import Worker

__all__ = ["demo"]

_GROUP = "demo"
_HANDLERS = 8
_BATCH = 200
_RETRY = RetryPolicy(max_attempts=3, initial=0.05, jitter=0.0)
_REFRESH = 0.1
_SESSION = 6.0
_LINE_EVERY = 1.0
_DIRECTORY = Path(".headrace-demo")


def demo(
    repo: Annotated[Path, typer.Option("--repo", help="A git repository.")] = Path(),
    dir: Annotated[Path | None, typer.Option("--dir", help="Where its state is; else .headrace-demo.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Keep it at this URL instead.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Publish at most so many commits.")] = None,
    json: Json = False,
) -> None:
    """Every commit becomes an event keyed by its author; 8 handlers take them in key order; some fail on purpose.

    Ctrl-C stops it; the next run goes on where this one stopped. It ends by saying what it proved.
    """
    if dir is not None and url is not None:
        raise ConfigError(f"--dir and --url exclude each other, got {str(dir)!a} and {shown(url)!a}")
    raise typer.Exit(run(_demo(repo, dir or _DIRECTORY, url, limit, json=json)))


async def _demo(repo: Path, directory: Path, url: str | None, limit: int | None, *, json: bool) -> int:
    total = await count_commits(repo)
    place = url or _make(directory)
    stop = asyncio.Event()
    with _on_signal(stop):
        async with open_broker(place) as broker:
            for topic in (COMMITS, HANDLED, DEAD):
                await broker.declare(topic)
            before = await read_ledger(broker)
            if not json:
                _say_hello(repo, place, total, before)
            scene = _Scene(broker, before)
            with _view(json=json) as view:
                await scene.play(repo, limit, stop, view)
            after = await read_ledger(broker)
    stopped = stop.is_set() and bool(after.waiting or not scene.all_published)
    _say_goodbye(scene, after, place, stopped=stopped, json=json)
    if stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if after.holds and not scene.overlaps else ExitCode.FAILED


def _make(directory: Path) -> str:
    """The store's directory below `directory`. One that we make hides itself from git."""
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
        (directory / ".gitignore").write_text("*\n", encoding="ascii")
    return str(directory / "store")


@contextlib.contextmanager
def _on_signal(stop: asyncio.Event) -> Generator[None]:
    """The first Ctrl-C stops in order, the second one at once."""
    task = asyncio.current_task()

    def stopping() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    with on_stop_signal(stopping):
        yield


class _Scene:
    """The events on their way: one publisher, one worker, and what they counted."""

    def __init__(self, broker: Broker, before: Ledger) -> None:
        self._broker = broker
        self._running: set[bytes | None] = set()
        self.before = len(before.handled)
        self.published, self.handled, self.dead = before.published, before.handled, before.dead
        self.published_now = self.handled_now = self.retried = self.dead_now = self.overlaps = 0
        self.all_published = False
        self.began = time.monotonic()

    @property
    def lag(self) -> int:
        """Published, neither handled nor dead."""
        return len(self.published) - len(self.handled) - len(self.dead)

    @property
    def rate(self) -> float:
        """Handled a second, in this run."""
        return self.handled_now / max(time.monotonic() - self.began, 0.001)

    async def play(self, repo: Path, limit: int | None, stop: asyncio.Event, view: _View) -> None:
        """Publish and handle until all is done, or until `stop`."""
        worker = Worker(
            self._broker,
            COMMITS,
            self._handle,
            group=_GROUP,
            concurrency=_HANDLERS,
            retry=_RETRY,
            on_exhausted=DeadLetter(DEAD),
            on_failure=self._failed,
            subscribe=_subscribing(self._broker),
        )
        async with worker:
            publisher = asyncio.create_task(self._publish(repo, limit))
            try:
                while not stop.is_set() and not (publisher.done() and self.lag == 0):
                    if publisher.done():
                        publisher.result()
                    view(self)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _REFRESH)
            finally:
                publisher.cancel()
                await asyncio.wait([publisher])
        if not publisher.cancelled():
            publisher.result()
        view(self)

    async def _publish(self, repo: Path, limit: int | None) -> None:
        """Every commit that is not in the stream yet: the stream itself says which."""
        batch: list[Message] = []
        chosen = 0
        async with contextlib.aclosing(commits(repo)) as history:
            async for commit in history:
                if commit.id in self.published:
                    continue
                if chosen == limit:
                    break
                chosen += 1
                batch.append(_event(commit))
                if len(batch) == _BATCH:
                    await self._send(batch)
                    batch = []
        await self._send(batch)
        self.all_published = True

    async def _send(self, batch: list[Message]) -> None:
        for message, result in zip(batch, await self._broker.publish_batch(batch), strict=True):
            if isinstance(result, PublishError):
                raise result
            self.published.add(message.id)
            self.published_now += 1

    async def _handle(self, delivery: Delivery) -> None:
        """Handle one commit: fail where it is its fate, else write the record that the proof is read from."""
        message = delivery.message
        commit, sequence = commit_of(message.body), delivery.position.value if delivery.position else 0
        self.overlaps += message.key in self._running
        self._running.add(message.key)
        try:
            _meet_fate(commit.id, sequence, delivery)
            record = msgspec.json.encode(Handled(commit.id, sequence, delivery.attempt))
            await self._broker.publish(Message(topic=HANDLED, body=record, key=message.key, id=message.id))
        finally:
            self._running.discard(message.key)
        if commit.id not in self.handled:
            self.handled.add(commit.id)
            self.dead.discard(commit.id)
            self.handled_now += 1

    def _failed(self, event: FailureEvent) -> None:
        if event.stage is FailureStage.RETRY and event.will_retry:
            self.retried += 1
        elif event.stage is FailureStage.DEAD_LETTER and not event.will_retry:
            commit = commit_of(event.message.body).id
            if commit not in self.dead:
                self.dead.add(commit)
                self.dead_now += 1


def _subscribing(broker: Broker) -> SubscribeOptions:
    """On Kafka a killed run keeps its partitions until its session is over: here no longer than brokers ask for."""
    if records.kafka_of(broker) is None:
        return SubscribeOptions()
    from headrace.kafka.reading import KafkaSubscribeOptions

    return KafkaSubscribeOptions(session_timeout=_SESSION)


def _event(commit: Commit) -> Message:
    body = msgspec.json.encode(commit)
    return Message(topic=COMMITS, body=body, key=commit.email.encode("utf-8", "replace"), id=commit.id)


def _meet_fate(commit: str, sequence: int, delivery: Delivery) -> None:
    """Fail now and then, the same way for the same commit.

    The first and the third event always do, so that a young history shows it too. What comes back from the dead
    letters succeeds: somebody has looked at it.
    """
    number = int(commit[:8], 16)
    if delivery.message.headers.get(letter.ID) is not None:
        return
    if number % 100 == 0 or sequence == 3:
        raise RejectError("this commit can never be handled (on purpose)")
    if number % 200 == 1:
        raise RuntimeError("this commit fails every time (on purpose)")
    if (number % 20 == 2 or sequence == 1) and delivery.attempt == 1:
        raise TimeoutError("something did not answer, once (on purpose)")


# -- what one sees ----------------------------------------------------------------------------------------------------


class _View(Protocol):
    """Shows how far it is."""

    def __call__(self, scene: _Scene, /) -> None: ...


@contextlib.contextmanager
def _view(*, json: bool) -> Generator[_View]:
    """A live table on a terminal, else a line a second; nothing for machines."""
    if json:
        yield lambda _: None
    elif sys.stdout.isatty():
        with Live(console=console(), auto_refresh=False) as live:
            yield lambda scene: live.update(_table(scene), refresh=True)
    else:
        yield _Lines()


class _Lines:
    """A line a second."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY

    def __call__(self, scene: _Scene) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY
            print(_line(scene), flush=True)


def _numbers(scene: _Scene) -> dict[str, str]:
    return {
        "published": f"{len(scene.published):,}",
        "handled": f"{len(scene.handled):,}",
        "retried": f"{scene.retried:,}",
        "dead": f"{len(scene.dead):,}",
        "rate": f"{scene.rate:,.0f}/s",
        "lag": f"{scene.lag:,}",
    }


def _line(scene: _Scene) -> str:
    return "  ".join(f"{name} {value}" for name, value in _numbers(scene).items())


def _table(scene: _Scene) -> Table:
    table = Table()
    numbers = _numbers(scene)
    for name in numbers:
        table.add_column(name, justify="right", min_width=9)
    table.add_row(*numbers.values())
    return table


def _say_hello(repo: Path, place: str, total: int, before: Ledger) -> None:
    where = safe(str(repo.resolve()))
    print(f"{counted(total, 'commit')} in {where}; {_HANDLERS} handlers, one author's commits in order")
    if before.published:
        done = len(before.handled) + len(before.dead)
        print(
            f"going on in {safe(shown(place))}: {len(before.published):,} were published, {done:,} are done", flush=True
        )
    else:
        print(f"beginning in {safe(shown(place))}; Ctrl-C stops, the next run goes on", flush=True)


def _say_goodbye(scene: _Scene, after: Ledger, place: str, *, stopped: bool, json: bool) -> None:
    if json:
        print_document(_facts(scene, after, stopped=stopped))
        return
    if not sys.stdout.isatty():
        print(_line(scene))
    if stopped:
        print(f"stopped; {len(after.waiting):,} published commits wait, run it again to go on")
    print(f"proved, from what is stored in {safe(shown(place))}:")
    dead = counted(len(after.dead), "dead letter")
    parts = f"{len(after.published):,} published = {len(after.handled):,} handled + {dead}"
    if after.waiting:
        parts += f" + {len(after.waiting):,} {'waiting' if stopped else 'LOST'}"
    print(f"  nothing lost   {parts}{f'; {len(after.invented):,} INVENTED' if after.invented else ''}")
    authors = counted(after.authors, "author")
    print(f"  order kept     {authors}, {after.out_of_order:,} of their commits handled out of order")
    print(f"  one at a time  {scene.overlaps:,} times in this run two commits of one author at once")
    if scene.before:
        print(f"  went on        {scene.before:,} handled by earlier runs; {after.repeated:,} of all handled twice")
    if after.dead:
        command = "headrace" if shutil.which("headrace") else safe(sys.argv[0])  # make demo runs it out of .venv
        print(f"look: {command} dead ls {COMMITS} --url {safe(shown(place))}")


def _facts(scene: _Scene, after: Ledger, *, stopped: bool) -> dict[str, Any]:
    return {
        "published": len(after.published),
        "handled": len(after.handled),
        "dead": len(after.dead),
        "waiting": len(after.waiting),
        "invented": len(after.invented),
        "retried": scene.retried,
        "published_now": scene.published_now,
        "handled_now": scene.handled_now,
        "dead_now": scene.dead_now,
        "handled_before": scene.before,
        "repeated": after.repeated,
        "authors": after.authors,
        "out_of_order": after.out_of_order,
        "overlaps": scene.overlaps,
        "rate": round(scene.rate, 1),
        "stopped": stopped,
        "holds": after.holds and not scene.overlaps,
    }
