"""Consumers: makes, finds, lists and deletes consumers. `JetStream` and `ServerStream` hand on to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from headrace.core.message import new_id
from headrace.jetstream.consumers.consumer import ServerConsumer
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.protocol.configs import consumer_config_to_json
from headrace.jetstream.protocol.echo import dropped_of_consumer, may_get_lost, not_kept, require_known
from headrace.jetstream.protocol.infos import consumer_info
from headrace.jetstream.protocol.values import optional, record, required, sections, texts
from headrace.streams.config import ConsumerConfig, OrderedConsumerConfig
from headrace.streams.errors import ConsumerExistsError
from headrace.streams.info import ConsumerInfo
from headrace.streams.ordered import OrderedConsumer
from headrace.streams.subjects import validate_consumer_name, validate_name

__all__ = ["Consumers"]

_EPHEMERAL = timedelta(seconds=5)
"""The inactive threshold that a server gives to what is not durable and has none."""


class Consumers:
    """The consumers of all streams. Names are checked before any I/O; no stream is looked up first."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create(self, stream: str, config: ConsumerConfig) -> ServerConsumer:
        """Make it; an equal one is fine, a different one is ``ConsumerExistsError``."""
        config = _named(config)
        try:
            return await self._put(stream, config, "create")
        except ConsumerExistsError:
            if config.durable is not None or config.inactive_threshold is not None:
                raise
            # A server compares before it fills in the inactive threshold of an ephemeral consumer: a false difference.
            there = consumer_info(await self._api.ask(f"CONSUMER.INFO.{stream}.{config.effective_name}"))
            if there.config.inactive_threshold != _EPHEMERAL:
                raise
        return await self._put(stream, replace(config, inactive_threshold=_EPHEMERAL), "create")

    async def update(self, stream: str, config: ConsumerConfig) -> ServerConsumer:
        """Change it; a missing one is ``ConsumerDoesNotExistError``."""
        return await self._put(stream, _named(config), "update")

    async def create_or_update(self, stream: str, config: ConsumerConfig) -> ServerConsumer:
        """Make or change it."""
        return await self._put(stream, _named(config), "")

    async def get(self, stream: str, name: str) -> ServerConsumer:
        """The consumer of this name; ``ConsumerNotFoundError``."""
        validate_name(stream)
        validate_consumer_name(name)
        return ServerConsumer(self._api, consumer_info(await self._api.ask(f"CONSUMER.INFO.{stream}.{name}")))

    async def delete(self, stream: str, name: str) -> None:
        """Delete it; ``ConsumerNotFoundError``."""
        validate_name(stream)
        validate_consumer_name(name)
        await self._api.ask(f"CONSUMER.DELETE.{stream}.{name}")

    async def ordered(self, stream: str, config: OrderedConsumerConfig) -> OrderedConsumer:
        """A reader of its own; made at first use. ``StreamNotFoundError``."""
        validate_name(stream)
        await self._api.ask(f"STREAM.INFO.{stream}")

        async def create(inner: ConsumerConfig) -> ServerConsumer:
            return await self.create(stream, inner)

        async def delete(name: str) -> None:
            await self.delete(stream, name)

        return OrderedConsumer(stream, config, create, delete)

    async def infos(self, stream: str) -> AsyncIterator[ConsumerInfo]:
        """All consumers of a stream."""
        validate_name(stream)
        where = f"CONSUMER.LIST.{stream}"
        async for page in self._api.pages(where, {}, lambda page: len(sections(page, "consumers", where))):
            for each in sections(page, "consumers", where):
                yield consumer_info(each)

    async def names(self, stream: str) -> AsyncIterator[str]:
        """Their names."""
        validate_name(stream)
        where = f"CONSUMER.NAMES.{stream}"
        async for page in self._api.pages(where, {}, lambda page: len(_names(page, where))):
            for name in _names(page, where):
                yield name

    async def _put(self, stream: str, config: ConsumerConfig, action: str) -> ServerConsumer:
        validate_name(stream)
        config.require_writable()
        require_known(config, self._api.connection.server_info)
        sent = consumer_config_to_json(config)
        place = f"{stream}.{config.effective_name}"
        subject = f"CONSUMER.CREATE.{place}"
        if len(config.filters) == 1:
            subject += f".{config.filters[0]}"
        body = {"stream_name": stream, "config": sent, "action": action}
        new = action != "update" and may_get_lost(config) and await self._api.is_missing(f"CONSUMER.INFO.{place}")
        answer = await self._api.ask(subject, body)
        info = consumer_info(answer)
        dropped = dropped_of_consumer(sent, required(answer, "config", record, subject))
        if dropped:
            if new:
                await self.delete(info.stream, info.name)
            raise not_kept(dropped, f"consumer {info.name!r}", deleted=new)
        return ServerConsumer(self._api, info)


def _named(config: ConsumerConfig) -> ConsumerConfig:
    """An ephemeral consumer without a name gets one: it stands in the subject of the request."""
    return config if config.effective_name is not None else replace(config, name=new_id())


def _names(page: dict[str, Any], where: str) -> tuple[str, ...]:
    nothing: tuple[str, ...] = ()
    return optional(page, "consumers", texts, nothing, where)
