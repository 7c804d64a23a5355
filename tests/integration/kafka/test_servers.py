"""The Kafkas that tests start: they answer, die, come back with what they had, fail as told, and leave nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from headrace.core.errors import BrokerError, ConfigError, UsageError
from headrace.testing.kafka import DISCONNECT, Api, KafkaMock, KafkaServer, Sasl, Tls, find_libs
from headrace.testing.nats import Proxy
from headrace.testing.plugin import kafka_cluster, kafka_installed, kafka_mock, kafka_server  # noqa: F401
from tests.children import SOURCE
from tests.integration.nats.certificates import Authority

pytestmark = pytest.mark.timeout(240)  # brokers start in seconds, on a busy machine in many

PATIENCE = 60.0
QUIET = {"log_level": "0"}


def produce(bootstrap, topic, *values, **options):
    """The errors of these values, in order; none is None."""
    errors = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True} | QUIET | options)
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: errors.append(error))
    producer.flush(PATIENCE)
    return [error and error.name() for error in errors]


def consume(bootstrap, topic, count, **options):
    """The first values of this topic."""
    settings = {"group.id": f"of {topic}", "auto.offset.reset": "earliest"} | QUIET | options
    consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
    consumer.subscribe([topic])
    found, deadline = [], time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < deadline:
        found += [message.value() for message in consumer.consume(count, 0.2) if not message.error()]
    consumer.close()
    return found


def gone(process):
    """Whether it ends within the patience of this file."""
    deadline = time.monotonic() + PATIENCE
    while (alive := Path(f"/proc/{process}").exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive


# --- one broker ---


def test_what_is_produced_is_consumed(kafka_server):  # noqa: F811
    kafka_server.create_topic("servers-round", 4)
    assert produce(kafka_server.bootstrap, "servers-round", b"a", b"b", b"c") == [None] * 3
    assert consume(kafka_server.bootstrap, "servers-round", 3) == [b"a", b"b", b"c"]


def test_the_newer_group_protocol_works(kafka_server):  # noqa: F811
    kafka_server.create_topic("servers-newer", 1)
    assert produce(kafka_server.bootstrap, "servers-newer", b"a") == [None]
    assert consume(kafka_server.bootstrap, "servers-newer", 1, **{"group.protocol": "consumer"}) == [b"a"]


@pytest.mark.parametrize("end", ["start", "kill", "stop", "pause", "resume", "said"])
def test_a_broker_that_was_not_started_here_is_not_ended_here(kafka_server, end):  # noqa: F811
    with pytest.raises(UsageError, match="not started here"):
        getattr(kafka_server, end)()


def test_a_topic_that_cannot_be_made_says_why(kafka_server):  # noqa: F811
    with pytest.raises(BrokerError, match="Unknown topic config"):
        kafka_server.create_topic("servers-odd", config={"no.such": "1"})


@pytest.mark.chaos
def test_comes_back_on_the_same_port_and_data(kafka_installed):  # noqa: F811
    began = time.monotonic()
    with KafkaServer(libs=kafka_installed) as kafka:
        print(f"\nready after {time.monotonic() - began:.1f} s")
        kafka.create_topic("orders")
        for number, end in enumerate((kafka.kill, kafka.stop)):
            assert produce(kafka.bootstrap, "orders", f"{number}".encode()) == [None]
            first = kafka.pid
            end()
            assert not kafka.running
            began = time.monotonic()
            kafka.start()
            print(f"{end.__name__}: ready again after {time.monotonic() - began:.1f} s")
            assert kafka.pid != first
        assert consume(kafka.bootstrap, "orders", 2) == [b"0", b"1"]
        with pytest.raises(UsageError, match="runs already"):
            kafka.start()


def test_frozen_it_takes_nothing_and_behind_a_proxy_it_can_be_cut_off(kafka_installed):  # noqa: F811
    seat_free = KafkaServer(libs=kafka_installed)
    with (
        Proxy(seat_free.seat.port) as proxy,
        KafkaServer(libs=kafka_installed, seat=seat_free.seat, advertised=proxy.port) as kafka,
    ):
        kafka.create_topic("orders")
        quick = {"message.timeout.ms": 1_000}
        kafka.pause()
        assert produce(kafka.bootstrap, "orders", b"a", **quick) == ["_MSG_TIMED_OUT"]
        kafka.resume()
        assert produce(kafka.bootstrap, "orders", b"b") == [None]
        proxy.down()
        assert produce(kafka.bootstrap, "orders", b"c", **quick) == ["_MSG_TIMED_OUT"]
        proxy.up()
        assert produce(kafka.bootstrap, "orders", b"d") == [None]


def test_says_why_it_will_not_start(kafka_installed):  # noqa: F811
    with pytest.raises(BrokerError, match=r"does not format its storage, exit status 1:(.|\n)*process\.roles"):
        KafkaServer(libs=kafka_installed, config={"process.roles": "nonsense"}).__enter__()
    with pytest.raises(BrokerError, match=r"exit status 1:(.|\n)*StorageTool"):
        KafkaServer(libs=kafka_installed / "none").__enter__()


def test_without_java_and_without_jars_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"python -m headrace\.testing\.kafka"):
        find_libs()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no java here"):
        KafkaServer(libs=tmp_path).__enter__()


def test_lives_in_a_context_only():
    with pytest.raises(UsageError, match="with KafkaServer"):
        KafkaServer().kill()


# --- logins ---


@pytest.mark.chaos
def test_tls_with_logins(kafka_installed, tmp_path):  # noqa: F811
    authority = Authority(tmp_path)
    certificate, key = authority.issue("broker", "127.0.0.1")
    sasl = Sasl(users={"anna": "secret1"})
    with KafkaServer(libs=kafka_installed, tls=Tls(certificate=certificate, key=key), sasl=sasl) as kafka:
        kafka.create_topic("orders")
        login = {"security.protocol": "SASL_SSL", "ssl.ca.location": str(authority.ca), "sasl.username": "anna"}
        for mechanism in sasl.mechanisms:
            good = login | {"sasl.mechanism": mechanism, "sasl.password": "secret1"}
            assert produce(kafka.bootstrap, "orders", mechanism.encode(), **good) == [None]
            bad = good | {"sasl.password": "wrong", "message.timeout.ms": 1_000}
            assert produce(kafka.bootstrap, "orders", b"bad", **bad) == ["_MSG_TIMED_OUT"]
        assert consume(kafka.bootstrap, "orders", 3, **good) == [name.encode() for name in sasl.mechanisms]


def test_tls_with_certificates_of_clients(kafka_installed, tmp_path):  # noqa: F811
    authority = Authority(tmp_path)
    certificate, key = authority.issue("broker", "127.0.0.1")
    mine, my_key = authority.issue("client")
    tls = Tls(certificate=certificate, key=key, clients=authority.ca)
    with KafkaServer(libs=kafka_installed, tls=tls) as kafka:
        kafka.create_topic("orders")
        trust = {"security.protocol": "SSL", "ssl.ca.location": str(authority.ca)}
        shown = trust | {"ssl.certificate.location": str(mine), "ssl.key.location": str(my_key)}
        assert produce(kafka.bootstrap, "orders", b"a", **shown) == [None]
        assert produce(kafka.bootstrap, "orders", b"a", **trust | {"message.timeout.ms": 1_000}) == ["_MSG_TIMED_OUT"]


@pytest.mark.parametrize("wrong", [{"users": {}, "mechanisms": ("GSSAPI",)}, {"users": {"anna": 'se"cret'}}])
def test_logins_that_cannot_be_written_down_are_refused(wrong):
    with pytest.raises(ConfigError):
        Sasl(**wrong)


# --- three brokers ---


@pytest.mark.chaos
def test_a_killed_leader_is_replaced_and_comes_back(kafka_cluster):  # noqa: F811
    kafka_cluster.create_topic("orders", 3)
    leader = kafka_cluster.leader_of("orders", 0)
    assert produce(kafka_cluster.bootstrap, "orders", b"0") == [None]
    leader.kill()
    began = time.monotonic()
    assert produce(kafka_cluster.bootstrap, "orders", b"1") == [None]
    print(f"\naccepted {time.monotonic() - began:.1f} s after a leader was killed")
    assert len(kafka_cluster.running) == 2
    assert kafka_cluster.leader_of("orders", 0) is not leader
    leader.start()
    assert consume(kafka_cluster.bootstrap, "orders", 2) == [b"0", b"1"]


# --- mock brokers ---


def test_a_pushed_error_is_seen(kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders")
    kafka_mock.push_errors(Api.PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE, DISCONNECT)
    assert produce(kafka_mock.bootstrap, "orders", b"a") == ["MSG_SIZE_TOO_LARGE"]
    assert produce(kafka_mock.bootstrap, "orders", b"b") == [None]  # sent again after the disconnect
    kafka_mock.push_errors(Api.PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE)
    kafka_mock.clear_errors(Api.PRODUCE)
    assert produce(kafka_mock.bootstrap, "orders", b"c") == [None]
    assert consume(kafka_mock.bootstrap, "orders", 2) == [b"b", b"c"]


def test_an_error_of_one_broker_and_its_delay(kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders")
    kafka_mock.move_leader("orders", 0, 2)
    kafka_mock.push_errors(Api.PRODUCE, KafkaError.INVALID_REQUIRED_ACKS, broker=1)
    kafka_mock.push_errors(Api.PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE, 0, broker=2, delay=0.3)
    began = time.monotonic()
    assert produce(kafka_mock.bootstrap, "orders", b"a") == ["MSG_SIZE_TOO_LARGE"]
    assert time.monotonic() - began >= 0.3
    with pytest.raises(ConfigError, match="needs a broker"):
        kafka_mock.push_errors(Api.PRODUCE, 0, delay=1)


def test_brokers_go_down_and_up_and_are_slow(kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders")
    kafka_mock.down()
    assert produce(kafka_mock.bootstrap, "orders", b"a", **{"message.timeout.ms": 500}) == ["_MSG_TIMED_OUT"]
    kafka_mock.up()
    kafka_mock.slow(0.1)
    began = time.monotonic()
    assert produce(kafka_mock.bootstrap, "orders", b"b") == [None]
    assert time.monotonic() - began >= 0.1


def test_requests_are_noted_by_broker_and_time(kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders")
    kafka_mock.track()
    assert kafka_mock.requests() == []
    for leader in (1, 3):
        kafka_mock.move_leader("orders", 0, leader)
        kafka_mock.move_coordinator("of orders", leader)
        assert produce(kafka_mock.bootstrap, "orders", b"a") == [None]
        assert consume(kafka_mock.bootstrap, "orders", 1, **{"session.timeout.ms": 1_000}) == [b"a"]
    assert [request.broker for request in kafka_mock.requests(Api.PRODUCE)] == [1, 3]
    commits = kafka_mock.requests(Api.OFFSET_COMMIT)
    assert {request.broker for request in commits} == {1, 3}
    assert [request.at for request in commits] == sorted(request.at for request in commits)
    assert 0 <= time.monotonic() - commits[-1].at < PATIENCE
    kafka_mock.untrack()
    kafka_mock.forget()
    assert produce(kafka_mock.bootstrap, "orders", b"a") == [None]
    assert kafka_mock.requests() == []


def test_the_newer_group_protocol_works_on_the_mock(kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders")
    kafka_mock.set_consumer_group_times(session=5, heartbeat=0.1)
    assert produce(kafka_mock.bootstrap, "orders", b"a") == [None]
    assert consume(kafka_mock.bootstrap, "orders", 1, **{"group.protocol": "consumer"}) == [b"a"]


def test_records_are_deleted_and_topics_too(kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders")
    for value in (b"a", b"b"):
        assert produce(kafka_mock.bootstrap, "orders", value) == [None]
    kafka_mock.delete_records("orders", 0, 1)
    assert consume(kafka_mock.bootstrap, "orders", 1) == [b"b"]
    kafka_mock.delete_topic("orders")
    with pytest.raises(BrokerError, match="nknown topic"):
        kafka_mock.delete_topic("orders")


def test_what_the_mock_has_not_got_is_an_error(kafka_mock):  # noqa: F811
    with pytest.raises(BrokerError, match="Broker not available"):
        kafka_mock.down(9)
    with pytest.raises(BrokerError, match="already exists"):
        kafka_mock.create_topic("orders"), kafka_mock.create_topic("orders")
    with pytest.raises(ConfigError, match="at least 1"):
        KafkaMock(0)
    with pytest.raises(UsageError, match="with KafkaMock"):
        KafkaMock().bootstrap  # noqa: B018


# --- nothing is left ---


def test_a_closed_server_leaves_no_process_and_no_file(kafka_installed):  # noqa: F811
    with KafkaServer(libs=kafka_installed) as kafka:
        process, folder = kafka.pid, kafka.log.parent
        assert folder.is_dir()
    assert gone(process)
    assert not folder.exists()


PROGRAM = """
import sys, time
from headrace.testing.kafka import KafkaServer
with KafkaServer() as kafka:
    print(kafka.pid, kafka.log.parent, flush=True)
    time.sleep(600)
"""


@pytest.mark.chaos
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_a_killed_program_leaves_no_process_and_no_file(kafka_installed):  # noqa: F811
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        process, folder = program.stdout.readline().split()
        program.send_signal(signal.SIGKILL)
    assert gone(process)
    deadline = time.monotonic() + PATIENCE
    while (left := Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
