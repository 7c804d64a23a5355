"""Middleware, one file each, send side and receive side together.

`logging` and `tracing` are taken as modules, each with ``send()`` and ``receive()``: tracing loads OpenTelemetry.
"""

from headrace.flow.middleware.base64 import Base64Decode, Base64Encode
from headrace.flow.middleware.by_topic import ByTopic, by_topic
from headrace.flow.middleware.compress import Compress, Decompress
from headrace.flow.middleware.dedup import Deduplicate, DedupStore

__all__ = [
    "Base64Decode",
    "Base64Encode",
    "ByTopic",
    "Compress",
    "Decompress",
    "DedupStore",
    "Deduplicate",
    "by_topic",
]
