"""Topic -> stream: a stream that covers the topic, else one named by its first token (jetstream.md 3.8.3)."""

from __future__ import annotations

from headrace.core.broker import TopicOptions
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.api import StreamManager
from headrace.streams.config import StreamConfig
from headrace.streams.errors import StreamNameInUseError, StreamNotFoundError, SubjectOverlapError
from headrace.streams.subjects import escape_token

__all__ = ["Topics"]

_MOST_KNOWN = 10_000


class Topics:
    """Finds and makes the streams of topics. ``known`` is a cache: it may be out of date, never the judge."""

    def __init__(self, streams: StreamManager) -> None:
        self.known: dict[str, str] = {}
        self._streams = streams

    def remember(self, topic: str, stream: str) -> None:
        """The topic was just taken by this stream."""
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()  # topics may be made of data; asking again costs one request each
        self.known[topic] = stream

    def forget(self, topic: str) -> None:
        """No stream took the topic."""
        self.known.pop(topic, None)

    async def find(self, topic: str) -> str:
        """The stream that covers `topic`; ``StreamNotFoundError``."""
        stream = await self._streams.stream_name_by_subject(topic)
        self.remember(topic, stream)
        return stream

    async def declare(self, topic: str, options: TopicOptions) -> str:
        """The stream that covers `topic`, made if there is none. See `StreamBroker.declare`."""
        if options.partitions is not None:
            raise UnsupportedError(f"a stream has no partitions, got {options.partitions}")
        try:
            stream = await self.find(topic)
        except StreamNotFoundError:
            token = topic.partition(".")[0]
            if token in ("*", ">"):
                raise
        else:
            await self._check(stream, options)
            return stream
        try:
            stream = (await self._streams.create_stream(self._config(token, options))).name
        except (StreamNameInUseError, SubjectOverlapError):
            # Another process may have declared it meanwhile, with other options than ours.
            try:
                stream = await self.find(topic)
            except StreamNotFoundError:
                stream = ""
            if not stream:
                raise
            await self._check(stream, options)
        self.remember(topic, stream)
        return stream

    def _config(self, token: str, options: TopicOptions) -> StreamConfig:
        return StreamConfig(
            name=escape_token(token),
            subjects=(token, f"{token}.>"),
            max_age=options.max_age,
            max_bytes=options.max_bytes,
            duplicate_window=options.dedup_window,
            replicas=1 if options.replication is None else options.replication,
            allow_message_ttl=self._streams.capabilities.ttl,
        )

    async def _check(self, stream: str, options: TopicOptions) -> None:
        """What is asked for is as it is, or ``ConfigError`` naming both."""
        asked = StreamConfig(
            name=stream,
            max_age=options.max_age,
            max_bytes=options.max_bytes,
            duplicate_window=options.dedup_window,
            replicas=1 if options.replication is None else options.replication,
        )
        wanted = {
            "max_age": asked.max_age,
            "max_bytes": asked.max_bytes,
            "dedup_window": asked.duplicate_window,
            "replication": options.replication,
        }
        if all(value is None for value in wanted.values()):
            return
        config = (await (await self._streams.stream(stream)).info()).config
        actual = {
            "max_age": config.max_age,
            "max_bytes": config.max_bytes,
            "dedup_window": config.duplicate_window,
            "replication": config.replicas,
        }
        for name, value in wanted.items():
            if value is not None and value != actual[name]:
                raise ConfigError(f"{name} of stream {stream} is {actual[name]}, got {value}")
