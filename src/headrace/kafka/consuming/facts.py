"""Facts of a record that was handed out, for logs, spans and failure events."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.delivery import Delivery
from headrace.kafka.consuming.partition import Held
from headrace.kafka.facts import CLIENT, EPOCH, KEY, OFFSET, ORDER_KEY, PARTITION, SYSTEM, TOMBSTONE
from headrace.kafka.wire import Tombstone

__all__ = ["facts_of"]


def facts_of(delivery: Delivery, client_id: str) -> Mapping[str, str | int]:
    """Built when asked for. A key that is no UTF-8 is left out."""
    held: Held = delivery.token
    partition, message = held.epoch.partition, held.message
    facts: dict[str, str | int] = {
        SYSTEM: "kafka",
        PARTITION: str(partition.number),
        OFFSET: held.offset,
        CLIENT: client_id,
        EPOCH: held.epoch.number,
    }
    if message.key is not None and (text := _text(message.key)) is not None:
        facts[KEY] = text
    if isinstance(message, Tombstone):
        facts[TOMBSTONE] = True
    if delivery.order_key != message.key and delivery.order_key is not None:
        key = delivery.order_key
        facts[ORDER_KEY] = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
    return facts


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None
