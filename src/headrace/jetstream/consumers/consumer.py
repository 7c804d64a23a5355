"""ServerConsumer: the handle of one consumer on a server."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from headrace.core.errors import ConfigError, UnsupportedError
from headrace.jetstream.consumers.session import ServerSession
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.protocol.infos import consumer_info
from headrace.jetstream.protocol.values import text_of_time
from headrace.streams.config import PriorityPolicy
from headrace.streams.consumer import Consumer
from headrace.streams.info import ConsumerInfo
from headrace.streams.session import PullSession, SessionOptions

__all__ = ["ServerConsumer"]

_PAUSE_SINCE = (2, 11)
_PRIORITY_SINCE = (2, 12)
_RESET_SINCE = (2, 14)


class ServerConsumer(Consumer):
    """A consumer on a server, shared by all who read it there."""

    def __init__(self, api: Api, info: ConsumerInfo) -> None:
        self._api = api
        self._info = info

    @property
    def cached_info(self) -> ConsumerInfo:
        """As last seen, without I/O."""
        return self._info

    async def info(self) -> ConsumerInfo:
        """As it is now. ``ConsumerNotFoundError``."""
        self._info = consumer_info(await self._ask("INFO"))
        return self._info

    def session(self, options: SessionOptions) -> PullSession:
        """A reader of its own; no I/O.

        ``ConfigError``: ``group`` is given and it has none, or the other way round; ``priority``, and it is not
        prioritized. ``UnsupportedError``: a server before 2.12 does not know ``priority``.
        """
        groups = tuple(self._info.config.priority_groups)
        if options.group is None and groups:
            raise ConfigError(f"consumer {self.name} has priority groups {groups}: group must be one of them, got None")
        if options.group is not None and options.group not in groups:
            raise ConfigError(f"group must be one of {groups} of consumer {self.name}, got {options.group!r}")
        if options.priority is not None:
            self._check_priority(options.priority)
        return ServerSession(self._api, self._info, options)

    async def pause(self, until: datetime) -> None:
        """Hand out nothing until then (an aware datetime); pulls stay open. Servers from 2.11 on."""
        if not isinstance(until, datetime) or until.tzinfo is None:
            raise ConfigError(f"until must be an aware datetime, got {until!r}")
        await self._ask_newer("PAUSE", _PAUSE_SINCE, {"pause_until": text_of_time(until)})

    async def resume(self) -> None:
        """Hand out again."""
        await self._ask_newer("PAUSE", _PAUSE_SINCE, {})

    async def unpin(self, group: str) -> None:
        """Let another client of the priority group be pinned. Servers from 2.11 on."""
        await self._ask_newer("UNPIN", _PAUSE_SINCE, {"group": group})

    async def reset(self, sequence: int | None = None) -> None:
        """Set it back to behind its ack floor, or to stream `sequence`. Servers from 2.14 on."""
        if sequence is not None and (isinstance(sequence, bool) or not isinstance(sequence, int) or sequence < 1):
            raise ConfigError(f"sequence must be an integer >= 1, got {sequence!r}")
        await self._ask_newer("RESET", _RESET_SINCE, {} if sequence is None else {"seq": sequence})

    def _check_priority(self, priority: int) -> None:
        """A server ignores it where it means nothing."""
        info, policy = self._api.connection.server_info, self._info.config.priority_policy
        if info.version_tuple < _PRIORITY_SINCE:
            since = ".".join(map(str, _PRIORITY_SINCE))
            raise UnsupportedError(f"priority needs nats-server {since}, this is {info.version}: got {priority}")
        if policy is not PriorityPolicy.PRIORITIZED:
            raise ConfigError(f"consumer {self.name} has priority_policy {policy}: it has no priority, got {priority}")

    async def _ask(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self._api.ask(f"CONSUMER.{verb}.{self.stream}.{self.name}", body)

    async def _ask_newer(self, verb: str, since: tuple[int, int], body: dict[str, Any]) -> None:
        """A server that does not know the request does not answer it."""
        info = self._api.connection.server_info
        if info.version_tuple < since:
            raise UnsupportedError(f"CONSUMER.{verb} needs nats-server {since[0]}.{since[1]}, this is {info.version}")
        await self._ask(verb, body)
