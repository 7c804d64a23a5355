"""The servers of the promised lines: those that `make test` brings into .servers, and the one of .venv.

A missing one fails in CI, and is skipped aloud elsewhere.
"""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.core.errors import UnsupportedError
from headrace.testing.nats import NatsServer

SERVERS = Path(__file__).parents[3] / ".servers"
OLDER = ("2.10.26", "2.11.11", "2.12.8")  # as in the Makefile
CURRENT = "current"


def server_of(version, store=None, **options):
    """A `NatsServer` of this version, not started."""
    return NatsServer(store, program=None if version == CURRENT else program(version), **options)


def program(version):
    path = SERVERS / version / "bin" / "nats-server"
    if not path.is_file():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no nats-server {version} here: make test brings it")
    return path


class Running:
    """Servers, each started when it is first asked for."""

    def __init__(self, stack):
        self._stack = stack
        self._urls = {}

    def url(self, version):
        if version not in self._urls:
            self._urls[version] = self._stack.enter_context(server_of(version)).url
        return self._urls[version]


def knows(js, since):
    """Whether the server at the other end is at least of this version."""
    return js.connection.server_info.version_tuple >= since


@contextmanager
def refusal(js, option, since):
    """`UnsupportedError` that names the option, the version that it needs, and the one that is there."""
    needed, there = (re.escape(each) for each in (".".join(map(str, since)), js.connection.server_info.version))
    with pytest.raises(UnsupportedError, match=rf"\b{option}\b.* needs .*nats-server {needed}, this is {there}\b"):
        yield


async def works_since(js, since, option, call):
    """Call it where the server can. Elsewhere it is refused by name, before anything is sent. Whether it worked."""
    if knows(js, since):
        await call()
        return True
    await js.connection.flush()
    before = js.connection.stats.out_messages
    with refusal(js, option, since):
        await call()
    await js.connection.flush()
    assert js.connection.stats.out_messages == before
    return False
