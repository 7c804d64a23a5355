"""The NATS wire client: connections to NATS servers, without a word of JetStream."""

from headrace.nats.block import build, fields_of, lines_of, status_of
from headrace.nats.connection import Connection
from headrace.nats.errors import (
    AuthenticationError,
    NoRespondersError,
    NoServersError,
    PayloadTooLargeError,
    PermissionsError,
    ProtocolError,
    ServerError,
    SlowConsumerError,
    StaleConnectionError,
)
from headrace.nats.inbox import Replies, ReplyCallback
from headrace.nats.info import ConnectionStats, ServerInfo
from headrace.nats.listener import Listener
from headrace.nats.messages import CoreMsg, Messages, Reply
from headrace.nats.options import ConnectionOptions, Signature
from headrace.nats.parser import MessageCallback
from headrace.nats.subscription import Subscription

__all__ = [
    "AuthenticationError",
    "Connection",
    "ConnectionOptions",
    "ConnectionStats",
    "CoreMsg",
    "Listener",
    "MessageCallback",
    "Messages",
    "NoRespondersError",
    "NoServersError",
    "PayloadTooLargeError",
    "PermissionsError",
    "ProtocolError",
    "Replies",
    "Reply",
    "ReplyCallback",
    "ServerError",
    "ServerInfo",
    "Signature",
    "SlowConsumerError",
    "StaleConnectionError",
    "Subscription",
    "build",
    "fields_of",
    "lines_of",
    "status_of",
]
