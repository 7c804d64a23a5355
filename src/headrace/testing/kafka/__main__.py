"""``python -m headrace.testing.kafka [FOLDER]`` puts Apache Kafka's jars into ``FOLDER/libs``, or the user's cache.

It may be run again at any time: what is there and whole stays; what is not takes its place in one rename.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.core.errors import BrokerError, ConfigError
from headrace.testing.kafka.archive import train
from headrace.testing.kafka.jars import VERSION, install

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """0, or 1 when there is no mvn, no network, or another jar than the list names; standard error says which."""
    try:
        libs = install(Path(arguments[0]).resolve() if arguments else None)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Apache Kafka {VERSION} is in {libs}\n")
    try:
        train(libs)
    except (BrokerError, ConfigError) as error:
        sys.stderr.write(f"brokers will start more slowly, for there is no archive of their classes: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
