"""Conformance: what every engine must keep, as plain coroutines without pytest."""

from headrace.testing.conformance.check import BrokerCheck, Check, OpenBroker, OpenStreams, StreamCheck
from headrace.testing.conformance.sets import broker_checks, stream_checks

__all__ = ["BrokerCheck", "Check", "OpenBroker", "OpenStreams", "StreamCheck", "broker_checks", "stream_checks"]
