"""Flow: what runs between an engine and your function."""

from headrace.flow.compose import BatchMiddleware, Middleware, compose
from headrace.flow.handlers import codec_for
from headrace.flow.judge import (
    BLOCK,
    DROP,
    STOP,
    DeadLetter,
    Ending,
    FailureEvent,
    FailureStage,
    OnExhausted,
    OnFailure,
)
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.flow.stats import Stats
from headrace.flow.topic import Topic
from headrace.flow.worker import Worker
from headrace.flow.writer import MessageWriter

__all__ = [
    "BLOCK",
    "DROP",
    "STOP",
    "BatchMiddleware",
    "DeadLetter",
    "Ending",
    "FailureEvent",
    "FailureStage",
    "MessageWriter",
    "Middleware",
    "OnExhausted",
    "OnFailure",
    "Ordering",
    "RetryPolicy",
    "Stats",
    "Topic",
    "Worker",
    "codec_for",
    "compose",
]
