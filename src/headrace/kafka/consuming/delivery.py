"""KafkaDelivery: a delivery that knows its partition and offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from headrace.core.delivery import Delivery
from headrace.core.message import Message
from headrace.kafka.consuming.partition import Held

__all__ = ["KafkaDelivery"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMPS: dict[int, Literal["create", "append"]] = {1: "create", 2: "append"}


class KafkaDelivery(Delivery, eq=False, gc=False):
    """One record, handed out. What it says of itself is built when it is asked for."""

    @property
    def partition(self) -> int:
        """Number of its partition."""
        return self._held.epoch.partition.number

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        return self._held.offset

    @property
    def received_at(self) -> datetime:
        """When its batch came from the driver; aware, UTC."""
        return _EPOCH + timedelta(microseconds=self._held.received_ns // 1_000)

    @property
    def timestamp_type(self) -> Literal["create", "append"] | None:
        """Whose time `Message.time` is: the sender's (create), the broker's (append); ``None``: nobody's."""
        return _STAMPS.get(self._held.stamp)

    def with_message(self, message: Message) -> KafkaDelivery:
        """A view with another message; it shares the settlement."""
        return KafkaDelivery(message, self.attempt, self.order_key, self.owner, self.token, self.settlement)

    @property
    def _held(self) -> Held:
        held: Held = self.token
        return held
