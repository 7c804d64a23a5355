"""Testing: conformance checks, virtual time, fault tools, for engines and users. Nobody in the house imports it."""

from headrace.testing.conformance import Check, broker_checks, stream_checks
from headrace.testing.faulty import Faulty
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import VirtualClock, VirtualLoop, virtual_time

__all__ = [
    "Check",
    "Faulty",
    "RecordingHandler",
    "VirtualClock",
    "VirtualLoop",
    "broker_checks",
    "run_until_idle",
    "stream_checks",
    "virtual_time",
]
