"""The classes that a broker loads, kept as the JVM has them in memory: one trained so starts in half the time.

The JVM looks itself whether an archive fits it and the jars, and does without one that does not (``-Xshare:auto``).
"""

from __future__ import annotations

from pathlib import Path

from headrace.core.errors import BrokerError
from headrace.testing.kafka.server import QUICK, KafkaServer, archive_of

__all__ = ["train"]


def train(libs: Path) -> Path:
    """Have the archive beside these jars: one start of a broker, unless it is there. ``ConfigError`` without a Java."""
    archive = archive_of(libs)
    if not archive.exists():
        new = archive.with_suffix(".new")
        with KafkaServer(libs=libs, java_options=(*QUICK, f"-XX:ArchiveClassesAtExit={new}")) as server:
            server.stop()
            if not new.exists():
                raise BrokerError(f"this JVM archives no classes:\n{server.said()[-2_000:]}")
        new.replace(archive)
    return archive
