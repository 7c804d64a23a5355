"""The facts of a stream engine for logs, spans and failure events: every name that `attributes()` gives stands here."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.broker import Receipt

__all__ = ["CONSUMER", "DELIVERED", "SEQUENCE", "STREAM", "SYSTEM", "StreamReceipt"]

SYSTEM = "messaging.system"  # OpenTelemetry, schema 1.44; it has no names for the others
STREAM = "headrace.stream"
CONSUMER = "headrace.consumer"
SEQUENCE = "headrace.sequence"
DELIVERED = "headrace.num_delivered"


class StreamReceipt(Receipt, frozen=True, gc=False):
    """A receipt that can name its engine. It equals any other one of the same position."""

    system: str = "headrace"

    def attributes(self) -> Mapping[str, str | int]:
        """System, stream and sequence."""
        if self.position is None:
            return {SYSTEM: self.system}
        return {SYSTEM: self.system, STREAM: self.position.source, SEQUENCE: self.position.value}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Receipt):
            return NotImplemented
        return (self.position, self.duplicate) == (other.position, other.duplicate)

    def __hash__(self) -> int:
        return hash(Receipt(self.position, self.duplicate))
