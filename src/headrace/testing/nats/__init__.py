"""NATS for tests: real servers that start in milliseconds. Nobody in the house imports it."""

from headrace.testing.nats.server import NatsServer, find_nats_server, free_port

__all__ = ["NatsServer", "find_nats_server", "free_port"]
