"""The names of what this room tells logs, spans and failure events: one table, as OpenTelemetry renames some.

``messaging.*``: its semantic conventions for messaging, schema 1.44.
"""

from __future__ import annotations

__all__ = ["CLIENT", "EPOCH", "KEY", "OFFSET", "ORDER_KEY", "PARTITION", "SYSTEM", "TOMBSTONE"]

SYSTEM = "messaging.system"
PARTITION = "messaging.destination.partition.id"
CLIENT = "messaging.client.id"
OFFSET = "messaging.kafka.offset"
KEY = "messaging.kafka.message.key"
TOMBSTONE = "messaging.kafka.message.tombstone"
ORDER_KEY = "headrace.order_key"
EPOCH = "headrace.kafka.epoch"
