"""Facts: what logs, spans and failure events are told of a record (names: OpenTelemetry, conventions 1.44)."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.delivery import Delivery
from headrace.kafka.consuming.partition import Held
from headrace.kafka.wire import Tombstone

__all__ = ["CLIENT", "OFFSET", "PARTITION", "SYSTEM", "facts_of"]

SYSTEM = "messaging.system"
PARTITION = "messaging.destination.partition.id"
OFFSET = "messaging.kafka.offset"
CLIENT = "messaging.client.id"
_KEY = "messaging.kafka.message.key"
_TOMBSTONE = "messaging.kafka.message.tombstone"
_ORDER_KEY = "headrace.order_key"
_EPOCH = "headrace.kafka.epoch"


def facts_of(delivery: Delivery, client_id: str) -> Mapping[str, str | int]:
    """Built when asked for. A key that is no UTF-8 is left out."""
    held: Held = delivery.token
    partition, message = held.epoch.partition, held.message
    facts: dict[str, str | int] = {
        SYSTEM: "kafka",
        PARTITION: str(partition.number),
        OFFSET: held.offset,
        CLIENT: client_id,
        _EPOCH: held.epoch.number,
    }
    if message.key is not None and (text := _text(message.key)) is not None:
        facts[_KEY] = text
    if isinstance(message, Tombstone):
        facts[_TOMBSTONE] = True
    if delivery.order_key != message.key and delivery.order_key is not None:
        key = delivery.order_key
        facts[_ORDER_KEY] = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
    return facts


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None
