"""NATS for tests: real servers that start in milliseconds, links that break, servers that lie.

Nothing here needs a running event loop: plain classes, open while their ``with`` block is, that also go on while the
loop of the test is blocked.
"""

from headrace.testing.nats.cluster import NatsCluster
from headrace.testing.nats.hostile import HostileServer, Hostility
from headrace.testing.nats.proxy import Direction, Proxy
from headrace.testing.nats.recording import RecordingServer
from headrace.testing.nats.server import NatsServer, find_nats_server, free_port

__all__ = [
    "Direction",
    "HostileServer",
    "Hostility",
    "NatsCluster",
    "NatsServer",
    "Proxy",
    "RecordingServer",
    "find_nats_server",
    "free_port",
]
