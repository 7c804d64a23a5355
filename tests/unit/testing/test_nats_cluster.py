"""NatsCluster: three servers, one leader of each stream, and another one when that steps down."""

from headrace.testing.nats import NatsCluster
from headrace.testing.nats.asking import ask

STREAM = {"name": "S", "subjects": ["s.>"], "num_replicas": 3}
CONSUMER = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}


def test_leaders_are_known_and_step_down():
    with NatsCluster() as cluster:
        assert len({server.port for server in cluster.running}) == 3
        assert "error" not in ask(cluster.servers[0].port, "STREAM.CREATE.S", STREAM)
        assert "error" not in ask(cluster.servers[1].port, "CONSUMER.DURABLE.CREATE.S.c", CONSUMER)
        for consumer in (None, "c"):
            first = cluster.leader_of("S", consumer)
            assert cluster.step_down("S", consumer) is cluster.leader_of("S", consumer) is not first
        cluster.wait_current("S")
