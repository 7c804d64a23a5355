"""Topics: which topics there are, and the making of those that are missing. Owner of the admin client."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from headrace.core.broker import TopicOptions
from headrace.core.duration import seconds_of
from headrace.core.errors import ClosedError, ConfigError, UnsupportedError, UsageError
from headrace.core.message import check_topic
from headrace.kafka import driver
from headrace.kafka.codes import Code
from headrace.kafka.errors import AuthenticationError, AuthorizationError, KafkaError, UnknownTopicError, error_for
from headrace.kafka.log import DriverLog
from headrace.kafka.options import KafkaOptions

__all__ = ["Topics", "check_name"]

T = TypeVar("T")

_log = logging.getLogger("headrace.kafka")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_PATIENCE = 10.0
"""Seconds for one answer, and until an address or a login that does not work is an error."""
_SLICE = 0.5
"""Seconds of one question: longest time that a thread of ours outlives a close or a cancelled open."""
_LEADERS = 30.0
"""Seconds that a new topic may take until all its partitions have a leader."""
_AGAIN = 0.05
_DEFAULT = TopicOptions()
_TELLING = (Code.LOCAL_RESOLVE, Code.LOCAL_SSL, Code.LOCAL_TRANSPORT)
"""Errors that say more about an address that does not answer than that it does not."""


def check_name(name: str) -> str:
    """A topic's name as Kafka and `check_topic` take it: dotted tokens, ``[A-Za-z0-9._-]{1,249}``. ``ConfigError``."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise ConfigError(f"topic must be 1..249 of A-Z a-z 0-9 . _ -, got {name!a}")
    return check_topic(name)


class Topics:
    """The topics of the brokers at `servers`, as far as somebody asked for them.

    ``known``: names of those that exist; looked up for each message. The admin client asks, never a producer: that
    one's question makes a topic where the server allows it. What several ask for at once is asked once; a question
    goes on when who asked is cancelled.
    """

    def __init__(self, servers: Sequence[str], options: KafkaOptions, log: DriverLog | None = None) -> None:
        self.known: set[str] = set()
        self._servers = list(servers)
        self._options = options
        self._log = log or DriverLog()
        self._admin: Any = None
        self._closed = False
        self._pid = os.getpid()
        self._errors: list[KafkaError] = []
        """Error events of the admin client since the last question."""
        self._asking: dict[object, asyncio.Task[Any]] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        """Of `answer`. The driver never answers what is under way when its client goes."""

    @property
    def admin(self) -> Any:
        """The driver's admin client; its calls give `concurrent.futures`, for `answer`."""
        self._check()
        return self._admin

    async def open(self) -> None:
        """Make the client, and see that brokers answer. Open: nothing happens.

        ``ImportError`` without the driver, ``ConfigError`` for settings that it refuses, ``AuthenticationError``,
        else `KafkaError` after 10 s without an answer.
        """
        if self._closed:
            raise ClosedError("the broker was closed")
        if self._admin is None or "open" in self._asking:
            await self._once("open", self._open)

    async def aclose(self) -> None:
        """End what is asked, and the client. Twice is fine; in a forked child nothing."""
        self._closed = True
        if os.getpid() != self._pid:
            return
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
        for waiter in self._waiters:
            _resolve(waiter)
        await self._drop()

    # -- asking -------------------------------------------------------------------------------------------------

    async def ensure(self, names: Iterable[str], *, create: bool = True) -> None:
        """All of them exist afterwards, or it raises. `known` ones are asked for too: one may be gone.

        One that was made has leaders; one that was there may wait for some, as do those who send to it and read it.
        ``UnknownTopicError`` for a missing one without `create`; ``ConfigError`` for a name that Kafka does not take,
        or that collides with another's; ``AuthorizationError`` for one that we may not see.
        """
        self._check()
        for name in dict.fromkeys(names):
            check_name(name)
            await self._once((name, create), partial(self._ensure, name, create=create))

    async def declare(self, name: str, options: TopicOptions = _DEFAULT) -> None:
        """Make it if it is missing. An existing topic is never altered: ``ConfigError`` if it differs from `options`.

        ``UnsupportedError`` for ``dedup_window``: Kafka has none.
        """
        self._check()
        check_name(name)
        if options.dedup_window is not None:
            raise UnsupportedError("Kafka has no window of ids: dedup_window cannot be kept")
        if not await self._create(name, options):
            await self._compare(name, options)
        await self._leaders(name)

    def forget(self, name: str) -> None:
        """Ask for it anew next time."""
        self.known.discard(name)

    async def partitions(self, name: str) -> int:
        """How many it has now. ``UnknownTopicError``."""
        self._check()
        return len(self._described(name, await self.metadata()).partitions)

    async def metadata(self) -> Any:
        """The driver's ``ClusterMetadata``: all brokers and topics, as they are now. ``KafkaError`` after 10 s."""
        self._check()
        return await self._once("metadata", self._metadata)

    async def answer(self, future: Any) -> Any:
        """What a future of the admin client comes to. ``KafkaError``; ``ClosedError`` once this is closed.

        Cancelling it does not disturb the driver.
        """
        self._check()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def done(_: object) -> None:  # on a thread of the driver's
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, waiter)

        future.add_done_callback(done)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
        if not future.done():
            raise ClosedError("the broker was closed")
        error = future.exception()
        if error is not None:
            raise driver.translated(error) from error
        return future.result()

    # -- inside -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError("the broker was opened before a fork: open one of its own in the child")
        if self._closed:
            raise ClosedError("the broker was closed")
        if self._admin is None:
            raise ClosedError("the broker is not open")

    async def _once(self, key: object, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer, asked for once however many want it now."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(ask())
            task.add_done_callback(partial(self._answered, key))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise ClosedError("the broker was closed") from None
            raise

    def _answered(self, key: object, task: asyncio.Task[Any]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # all who asked may be gone

    async def _open(self) -> None:
        driver.require()
        config = driver.admin_config(self._servers, self._options)
        config["allow.auto.create.topics"] = False  # else it is made by a question for it by name
        try:
            await asyncio.to_thread(self._make, config)
            await self._metadata()
        except BaseException:
            await self._drop()
            raise

    def _make(self, config: driver.Config) -> None:
        """On a thread, which whoever closes does not wait for."""
        self._admin = driver.admin(config, self._log, self._errors.append)
        if self._closed:
            self._admin = None

    async def _drop(self) -> None:
        holder, self._admin = [self._admin], None
        if holder[0] is not None:
            await asyncio.shield(asyncio.to_thread(holder.clear))  # its end waits for threads of the driver

    async def _metadata(self, name: str | None = None) -> Any:
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        self._errors.clear()
        while True:
            try:
                return await asyncio.to_thread(self._listing, name)
            except Exception as error:
                failure = driver.translated(error)
                refused = next((event for event in self._errors if isinstance(event, AuthenticationError)), None)
                if refused is not None and refused.code != Code.LOCAL_SSL:
                    raise refused from error
                if not failure.retriable or loop.time() + _SLICE > until:
                    raise self._best(failure) from error

    def _listing(self, name: str | None) -> Any:
        admin = self._admin
        try:
            return admin.list_topics(name, timeout=_SLICE)
        except Exception as error:  # noqa: BLE001  (whatever the driver raises)
            raise error.with_traceback(None) from None  # whoever keeps it would keep the client with its frames
        finally:
            admin.poll(0)  # serves error events and the log: a refused login is told nowhere else
            del admin

    def _best(self, failure: KafkaError) -> KafkaError:
        """Of what went wrong, what tells most."""
        by_code = {event.code: event for event in self._errors}
        return next((by_code[code] for code in _TELLING if code in by_code), failure)

    async def _ensure(self, name: str, *, create: bool) -> None:
        found = (await self._metadata(name)).topics.get(name)  # among all topics, one that we may not see is missing
        error = None if found is None or found.error is None else driver.translated(found.error)
        if isinstance(error, AuthorizationError):
            raise error_for(error.code, error.name, f"topic {name!r} may not be seen")
        if found is None or isinstance(error, UnknownTopicError):
            self.forget(name)
            if not create:
                raise UnknownTopicError(f"there is no topic {name!r}, and create is False")
            await self._create(name, _DEFAULT)
        elif error is None and found.partitions:  # one without a leader is the driver's to wait for
            self.known.add(name)
            return
        await self._leaders(name)

    async def _create(self, name: str, options: TopicOptions) -> bool:
        """Whether it was made; it may exist. ``ConfigError``, ``KafkaError``."""
        new = driver.NewTopic(
            name,
            num_partitions=options.partitions or -1,
            replication_factor=options.replication or -1,
            config={key: str(value) for key, value in _settings(options).items()},
        )
        asked = self._admin.create_topics([new], operation_timeout=_PATIENCE, request_timeout=_PATIENCE)
        try:
            await self.answer(asked[name])
        except KafkaError as error:
            if error.code == Code.TOPIC_ALREADY_EXISTS:
                return False
            if error.code in {Code.TOPIC_EXCEPTION, Code.POLICY_VIOLATION, *_BAD_OPTIONS}:
                raise ConfigError(f"topic {name!r} is refused: {error}") from error
            raise
        _log.info("topic %s was made", name)
        return True

    async def _compare(self, name: str, options: TopicOptions) -> None:
        topic = self._described(name, await self.metadata())
        there: dict[str, int] = {
            "partitions": len(topic.partitions),
            "replication": min((len(one.replicas) for one in topic.partitions.values()), default=0),
        }
        wanted = {"partitions": options.partitions, "replication": options.replication}
        settings = _settings(options)
        if settings:
            resource = driver.ConfigResource(driver.ResourceType.TOPIC, name)
            answers = self._admin.describe_configs([resource], request_timeout=_PATIENCE)
            found = await self.answer(next(iter(answers.values())))
            there |= {key: int(found[key].value) for key in settings}
        for key, value in {**wanted, **settings}.items():
            if value is not None and there[key] != value:
                raise ConfigError(f"topic {name!r} has {key} {there[key]}, not {value}: declare never alters one")

    async def _leaders(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _LEADERS
        while True:
            topic = (await self.metadata()).topics.get(name)
            if topic is not None and topic.partitions and all(one.leader >= 0 for one in topic.partitions.values()):
                self.known.add(name)
                return
            if loop.time() > until:
                text = f"topic {name!r} has no leader for all its partitions after {_LEADERS:g} s"
                raise error_for(Code.LEADER_NOT_AVAILABLE, Code.LEADER_NOT_AVAILABLE.name, text)
            await asyncio.sleep(_AGAIN)

    def _described(self, name: str, metadata: Any) -> Any:
        topic = metadata.topics.get(name)
        if topic is None or not topic.partitions:
            raise UnknownTopicError(f"there is no topic {name!r}")
        return topic


_BAD_OPTIONS = (37, 38, 39, 40)
"""INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_REPLICA_ASSIGNMENT, INVALID_CONFIG."""


def _settings(options: TopicOptions) -> dict[str, int]:
    settings: dict[str, int] = {}
    if options.max_age is not None:
        settings["retention.ms"] = round(seconds_of(options.max_age, "max_age") * 1000)
    if options.max_bytes is not None:
        settings["retention.bytes"] = options.max_bytes
    return settings


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
