"""Streams of messages to Python functions: one message model, one worker, interchangeable engines."""

from headrace.connect import connect
from headrace.core.broker import (
    Broker,
    Capabilities,
    Expect,
    Publisher,
    PublishOptions,
    Receipt,
    Start,
    SubscribeOptions,
    TopicOptions,
)
from headrace.core.delivery import ACK, RELEASE, Ack, Delivery, Nak, Outcome, Position, Reject, Release
from headrace.core.errors import (
    BrokerError,
    ConfigError,
    Fault,
    HeadraceError,
    PublishError,
    RejectError,
    RetryLaterError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow.judge import BLOCK, DROP, STOP, DeadLetter
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.flow.topic import Topic
from headrace.flow.worker import Worker

__all__ = [
    "ACK",
    "BLOCK",
    "DROP",
    "RELEASE",
    "STOP",
    "Ack",
    "Broker",
    "BrokerError",
    "Capabilities",
    "ConfigError",
    "DeadLetter",
    "Delivery",
    "Expect",
    "Fault",
    "Headers",
    "HeadraceError",
    "Message",
    "Nak",
    "Ordering",
    "Outcome",
    "Position",
    "PublishError",
    "PublishOptions",
    "Publisher",
    "Receipt",
    "Reject",
    "RejectError",
    "Release",
    "RetryLaterError",
    "RetryPolicy",
    "Start",
    "StoreError",
    "SubscribeOptions",
    "Topic",
    "TopicOptions",
    "UnsupportedError",
    "UsageError",
    "Worker",
    "connect",
]
