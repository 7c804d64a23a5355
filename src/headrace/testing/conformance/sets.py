"""The two sets of checks: for brokers, and for the stream model."""

from __future__ import annotations

from headrace.core.broker import Capabilities
from headrace.testing.conformance import (
    broker_deliver,
    broker_group,
    broker_publish,
    broker_settle,
    stream_consume,
    stream_read,
    stream_second,
    stream_settle,
    stream_store,
)
from headrace.testing.conformance.check import BrokerCheck, StreamCheck, excluded_by

__all__ = ["broker_checks", "stream_checks"]


def broker_checks(capabilities: Capabilities) -> list[BrokerCheck]:
    """Every check of the seam; those that `capabilities` exclude say so in ``excluded``: skip them aloud."""
    checks = (*broker_publish.CHECKS, *broker_deliver.CHECKS, *broker_settle.CHECKS, *broker_group.CHECKS)
    return [excluded_by(check, capabilities) for check in checks]


def stream_checks(capabilities: Capabilities) -> list[StreamCheck]:
    """Every check of the stream model, in the same form."""
    checks = (*stream_store.CHECKS, *stream_consume.CHECKS, *stream_settle.CHECKS, *stream_read.CHECKS)
    checks += stream_second.CHECKS
    return [excluded_by(check, capabilities) for check in checks]
