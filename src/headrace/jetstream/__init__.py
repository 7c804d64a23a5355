"""Streams on a NATS server: the stream model over the wire client."""

from headrace.jetstream.jetstream import JetStream, connect, opened
from headrace.jetstream.options import ClientTrace, JetStreamOptions
from headrace.jetstream.stream import ServerStream

__all__ = ["ClientTrace", "JetStream", "JetStreamOptions", "ServerStream", "connect", "opened"]
