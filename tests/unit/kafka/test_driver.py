"""The driver file: what it tells the driver, what it refuses before any I/O, and what a log sees of an outage."""

import logging
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import confluent_kafka
import pytest

from headrace.core.errors import ConfigError
from headrace.kafka import driver
from headrace.kafka.codes import Code
from headrace.kafka.errors import AuthenticationError, KafkaError, error_for
from headrace.kafka.log import DriverLog
from headrace.kafka.options import KafkaOptions, KafkaSecurity, Token
from headrace.kafka.reading import KafkaPartitionOptions, KafkaSubscribeOptions

SERVERS = ["127.0.0.1:1", "127.0.0.1:2"]
SECRET = "geheim-4711"
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "confluent_kafka":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def in_python(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_without_driver():
    """All of the room can be imported, options made, addresses checked; what needs the driver says what to install."""
    said = in_python(
        BLOCK
        + """
import importlib, pkgutil
import headrace.kafka
for module in pkgutil.walk_packages(headrace.kafka.__path__, "headrace.kafka."):
    importlib.import_module(module.name)
for name in headrace.kafka.__all__:
    getattr(headrace.kafka, name)
from headrace.kafka import driver
headrace.kafka.KafkaOptions(driver_options={"linger.ms": 5})
for call in (driver.require, lambda: driver.TopicPartition, lambda: driver.check_names({"a": 1})):
    try:
        call()
    except ImportError as error:
        print(error, "|", type(error.__cause__).__name__)
"""
    )
    lines = said.splitlines()
    assert len(lines) == 3
    assert all("pip install 'headrace[kafka]'" in text and "ModuleNotFoundError" in text for text in lines)


def test_importing_the_room_loads_no_driver():
    assert in_python("import sys, headrace.kafka; print('confluent_kafka' in sys.modules)") == "False\n"


def test_the_driver_is_imported_in_one_file():
    room = Path(driver.__file__).parent
    naming = [path.name for path in room.rglob("*.py") if "import confluent_kafka" in path.read_text()]
    taking = [path.name for path in room.rglob("*.py") if "from confluent_kafka" in path.read_text()]
    assert (naming, taking) == ([], ["driver.py"])


def test_its_names_are_the_drivers():
    assert driver.TopicPartition is confluent_kafka.TopicPartition
    assert driver.DriverError is confluent_kafka.KafkaError
    assert driver.AdminClient is __import__("confluent_kafka.admin").admin.AdminClient
    assert (driver.OFFSET_BEGINNING, driver.OFFSET_END, driver.OFFSET_STORED, driver.OFFSET_INVALID) == (
        confluent_kafka.OFFSET_BEGINNING, confluent_kafka.OFFSET_END, confluent_kafka.OFFSET_STORED,
        confluent_kafka.OFFSET_INVALID,
    )  # fmt: skip
    for name in driver.__all__:
        assert getattr(driver, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = driver.nonsense


# --- settings --------------------------------------------------------------------------------------


def test_consumer_config():
    reading = KafkaSubscribeOptions(group="billing", session_timeout=6, max_poll_interval=10, drain_timeout=5)
    assert driver.consumer_config(SERVERS, KafkaOptions(driver_options={"check.crcs": False}), reading) == {
        "bootstrap.servers": "127.0.0.1:1,127.0.0.1:2", "client.id": "headrace", "group.id": "billing",
        "enable.auto.commit": False, "enable.auto.offset.store": False, "enable.partition.eof": True,
        "auto.offset.reset": "error", "allow.auto.create.topics": False, "isolation.level": "read_committed",
        "check.crcs": False, "fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 16384, "max.poll.interval.ms": 10_000, "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 2_000,
    }  # fmt: skip


def test_group_protocols():
    def of(**given):
        return driver.consumer_config(SERVERS, KafkaOptions(), KafkaSubscribeOptions(**given))

    assert of(group_protocol="eager")["partition.assignment.strategy"] == "range"
    assert of()["session.timeout.ms"] == 45_000
    assert of(group_instance_id="a")["group.instance.id"] == "a"
    modern = of(group_protocol="consumer")
    assert modern["group.protocol"] == "consumer"
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & set(modern)
    alone = driver.consumer_config(SERVERS, KafkaOptions(client_id="me"), KafkaPartitionOptions(partition=0))
    assert alone["group.id"] == "me"
    assert "group.protocol" not in alone


def test_producer_config():
    assert driver.producer_config(SERVERS, KafkaOptions()) == {
        "bootstrap.servers": "127.0.0.1:1,127.0.0.1:2", "client.id": "headrace", "enable.idempotence": True,
        "acks": "all", "message.timeout.ms": 0, "linger.ms": 5.0, "compression.type": "none",
        "message.max.bytes": 1_000_000, "queue.buffering.max.kbytes": 65_536, "queue.buffering.max.messages": 0,
        "partitioner": "murmur2_random",
    }  # fmt: skip
    given = KafkaOptions(delivery_timeout=timedelta(seconds=2), driver_options={"queue.buffering.max.messages": 10})
    config = driver.producer_config(SERVERS, given)
    assert (config["message.timeout.ms"], config["queue.buffering.max.messages"]) == (2_000, 10)


def test_security_config(tmp_path):
    file = tmp_path / "all.pem"
    file.touch()
    security = KafkaSecurity(
        protocol="sasl_tls", mechanism="SCRAM-SHA-512", username="me", password=SECRET, ca_file=file,
        certificate_file=str(file), key_file=file, key_password=SECRET,
    )  # fmt: skip
    config = driver.common_config(SERVERS, KafkaOptions(security=security))
    assert {name: value for name, value in config.items() if name not in {"bootstrap.servers", "client.id"}} == {
        "security.protocol": "sasl_ssl", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "me",
        "sasl.password": SECRET, "ssl.ca.location": str(file), "ssl.certificate.location": str(file),
        "ssl.key.location": str(file), "ssl.key.password": SECRET, "enable.ssl.certificate.verification": True,
        "ssl.endpoint.identification.algorithm": "https",
    }  # fmt: skip


MAKERS = {
    "consumer": lambda options: driver.consumer(
        driver.consumer_config(SERVERS, options, KafkaSubscribeOptions(group="g")), DriverLog()
    ),
    "producer": lambda options: driver.producer(driver.producer_config(SERVERS, options), DriverLog()),
    "admin": lambda options: driver.admin(driver.admin_config(SERVERS, options), DriverLog()),
}


def close(client):
    if hasattr(client, "close"):
        client.close()


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "options",
    [
        KafkaOptions(),
        KafkaOptions(delivery_timeout=1, linger=0, compression="zstd", max_message_bytes=50_000_000),
        KafkaOptions(driver_options={"linger.ms": 3, "statistics.interval.ms": 0, "socket.timeout.ms": 1000}),
        KafkaOptions(security=KafkaSecurity(protocol="tls")),
        KafkaOptions(
            security=KafkaSecurity(protocol="sasl_plaintext", mechanism="PLAIN", username="me", password=SECRET)
        ),
    ],
    ids=["defaults", "sending", "raw", "tls", "plain"],
)
def test_the_driver_takes_all_of_it(kind, options):
    driver.check_names(options.driver_options)
    close(MAKERS[kind](options))


@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_the_driver_takes_each_group_protocol(protocol):
    reading = KafkaSubscribeOptions(group="g", group_protocol=protocol, group_instance_id="a", max_poll_interval=31)
    driver.consumer(driver.consumer_config(SERVERS, KafkaOptions(), reading), DriverLog()).close()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"no.such.name": 1}, "no.such.name"), ({"linger.ms": 5, "lingerms": 5}, "lingerms"), ({"": 1}, 'property: ""'),
        ({"linger.ms": "slow"}, "queue.buffering.max.ms"), ({"socket.timeout.ms": -5}, "socket.timeout.ms"),
        ({"default_topic_conf": 1}, "default_topic_conf"), ({"headrace.e": 1}, "headrace.e"),
    ],
)  # fmt: skip
def test_a_name_that_the_driver_does_not_know(given, named):
    with pytest.raises(ConfigError, match=named):
        driver.check_names(given)


@pytest.mark.parametrize("kind", MAKERS)
def test_settings_that_only_the_client_refuses(kind, tmp_path):
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    keys = {"certificate_file": garbage, "key_file": garbage, "key_password": SECRET}
    sasl = {"protocol": "sasl_tls", "mechanism": "PLAIN", "username": "me", "password": SECRET}
    for files in ({"ca_file": garbage}, keys):
        with pytest.raises(ConfigError, match="location failed") as caught:
            MAKERS[kind](KafkaOptions(security=KafkaSecurity(**sasl, **files)))
        assert SECRET not in f"{caught.value!r} {caught.value}"
        assert caught.value.__cause__ is None
    with pytest.raises(ConfigError, match=r"no\.such"):
        MAKERS[kind](KafkaOptions(driver_options={"no.such": 1}))


@pytest.mark.parametrize("name", ["ca_file", "certificate_file"])
def test_a_file_that_is_missing_is_named(name):
    files = {"certificate_file": "/nowhere/c.pem", "key_file": "/nowhere/k.pem", name: "/nowhere/a.pem"}
    with pytest.raises(ConfigError, match=f"{name}.*/nowhere/a.pem"):
        driver.admin_config(SERVERS, KafkaOptions(security=KafkaSecurity(protocol="tls", **files)))


def test_a_secret_in_the_drivers_own_words_is_hidden():
    config = {"sasl.mechanism": SECRET, "security.protocol": "sasl_plaintext", "sasl.password": SECRET}
    with pytest.raises((ConfigError, KafkaError)) as caught:
        driver.producer(config, DriverLog())
    assert SECRET not in f"{caught.value!r}"


def test_tokens_reach_the_driver(caplog):
    asked = []

    def token():
        asked.append(1)
        if len(asked) == 1:
            raise RuntimeError(SECRET)
        return Token(SECRET, datetime.now(UTC) + timedelta(hours=1))

    answer = driver.common_config(
        SERVERS, KafkaOptions(security=KafkaSecurity(protocol="sasl_plaintext", mechanism="OAUTHBEARER", token=token))
    )["oauth_cb"]
    with caplog.at_level(logging.DEBUG, "headrace.kafka"):
        with pytest.raises(RuntimeError):
            answer("")
        value, expires = answer("")
    assert (value, type(expires)) == (SECRET, float)
    assert SECRET not in caplog.text
    assert "RuntimeError" in caplog.text


# --- log -------------------------------------------------------------------------------------------


class Hand:
    """A clock that is set by hand."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        return self.seconds


def test_one_warning_per_outage(caplog):
    clock = Hand()
    log = DriverLog(clock)
    with caplog.at_level(logging.DEBUG, "headrace.kafka"):
        for _ in range(50):
            log.log(logging.ERROR, "%s [%s] %s", "FAIL", "headrace#consumer-1", "Connect to h:1 failed")
            log.failed(error_for(Code.LOCAL_TRANSPORT, "_TRANSPORT", "gone"))
            clock.seconds += 20
        log.recovered()
        log.log(logging.WARNING, "%s [%s] %s", "CONFWARN", "headrace#consumer-1", "a setting")
        log.failed(error_for(Code.LOCAL_ALL_BROKERS_DOWN, "_ALL_BROKERS_DOWN", "2/2 brokers are down"))
        assert log.down
        log.recovered()
        assert not log.down
        log.failed(error_for(Code.LOCAL_ALL_BROKERS_DOWN, "_ALL_BROKERS_DOWN", "2/2 brokers are down"))
        clock.seconds += 61
        log.log(logging.ERROR, "%s [%s] %s", "FAIL", "headrace#consumer-1", "Connect to h:1 failed")
    loud = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert loud == [
        "FAIL [headrace#consumer-1] Connect to h:1 failed",
        "2/2 brokers are down (_ALL_BROKERS_DOWN)",
        "FAIL [headrace#consumer-1] Connect to h:1 failed",
    ]
    assert len(caplog.records) > 100


def test_a_real_client_speaks_to_our_logger_only(caplog, capfd):
    errors = []
    with caplog.at_level(logging.DEBUG, "headrace.kafka"):
        client = driver.producer(driver.producer_config(["127.0.0.1:1"], KafkaOptions()), DriverLog(), errors.append)
        until = time.monotonic() + 10
        while not any(error.code == Code.LOCAL_ALL_BROKERS_DOWN for error in errors) and time.monotonic() < until:
            client.poll(0.05)
        client.close()
    assert any(error.code == Code.LOCAL_ALL_BROKERS_DOWN for error in errors)
    assert all(isinstance(error, KafkaError) and error.retriable for error in errors)
    assert [record.levelname for record in caplog.records if record.levelno > logging.DEBUG] == ["WARNING"]
    assert capfd.readouterr().err == ""


def test_a_login_that_is_refused_is_no_outage(caplog):
    log = DriverLog()
    with caplog.at_level(logging.DEBUG, "headrace.kafka"):
        log.failed(AuthenticationError("refused"))
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
