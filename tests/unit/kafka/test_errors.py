"""Codes to classes and faults; every code that the driver knows, and everything that it can raise."""

import confluent_kafka
import pytest

from headrace.core.broker import Receipt
from headrace.core.errors import BrokerError, Fault, HeadraceError, PublishError
from headrace.kafka import codes, driver
from headrace.kafka.codes import Code
from headrace.kafka.errors import (
    AuthenticationError,
    AuthorizationError,
    CommitError,
    KafkaError,
    OffsetOutOfRangeError,
    ProduceBatchError,
    UnknownGroupError,
    UnknownTopicError,
    error_for,
    fault_of,
)

CODES = {
    name: code
    for name in dir(confluent_kafka.KafkaError)
    if type(code := getattr(confluent_kafka.KafkaError, name)) is int
}


def test_our_codes_are_the_drivers():
    ours = {code.name.replace("LOCAL_", "_", 1): code.value for code in Code}
    assert ours == {name: CODES[name] for name in ours}


def test_driver_errors_never_escape():
    """Walks all codes: each becomes one of ours, keeps code, name and text, and has a fault."""
    assert len(CODES) > 150
    for name, code in CODES.items():
        for given in (confluent_kafka.KafkaError(code, f"text of {name}"), confluent_kafka.KafkaError(code)):
            for error in (given, confluent_kafka.KafkaException(given)):
                found = driver.translated(error)
                assert isinstance(found, KafkaError)
                assert isinstance(found, BrokerError)
                assert (found.code, found.name, found.fatal) == (code, name, code == Code.LOCAL_FATAL)
                assert given.str() in str(found)
                assert name in str(found)
        assert isinstance(fault_of(code), Fault)


def test_every_exception_of_the_driver_is_one_of_ours():
    """Its modules are searched for exceptions; what none of them knows is a KafkaError too."""
    raised = [
        thing
        for module in (confluent_kafka, confluent_kafka.cimpl, confluent_kafka.error)
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, BaseException)
    ]
    assert confluent_kafka.KafkaException in raised
    for kind in {*raised, RuntimeError, BufferError, TypeError, ValueError}:
        try:
            error = kind("boom")
        except TypeError:
            error = kind(confluent_kafka.KafkaError(-195, "boom"))
        found = driver.translated(error)
        assert isinstance(found, KafkaError)
        assert "boom" in str(found)
    assert driver.translated(BufferError("Local: Queue full")).code == Code.LOCAL_QUEUE_FULL
    assert driver.translated(RuntimeError("Consumer closed")).code == Code.LOCAL_STATE
    assert "KafkaException" in str(driver.translated(confluent_kafka.KafkaException()))


def test_fatal_and_retriable_are_kept():
    fatal = driver.translated(confluent_kafka.KafkaError(Code.LOCAL_TRANSPORT, "gone", True, True))
    assert fatal.fatal
    assert not fatal.retriable
    assert driver.translated(confluent_kafka.KafkaError(Code.UNKNOWN, "x", False, True)).retriable
    assert driver.translated(confluent_kafka.KafkaError(Code.LOCAL_TRANSPORT, "gone")).retriable
    assert not driver.translated(confluent_kafka.KafkaError(Code.TOPIC_AUTHORIZATION_FAILED)).retriable


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.LOCAL_AUTO_OFFSET_RESET, OffsetOutOfRangeError),
        (Code.LOCAL_LOG_TRUNCATION, OffsetOutOfRangeError),
        (Code.OFFSET_OUT_OF_RANGE, OffsetOutOfRangeError),
        (Code.SASL_AUTHENTICATION_FAILED, AuthenticationError),
        (Code.LOCAL_AUTHENTICATION, AuthenticationError),
        (Code.LOCAL_SSL, AuthenticationError),
        (Code.GROUP_AUTHORIZATION_FAILED, AuthorizationError),
        (Code.TOPIC_AUTHORIZATION_FAILED, AuthorizationError),
        (Code.UNKNOWN_TOPIC_OR_PART, UnknownTopicError),
        (Code.LOCAL_UNKNOWN_PARTITION, UnknownTopicError),
        (Code.GROUP_ID_NOT_FOUND, UnknownGroupError),
        (Code.OFFSET_METADATA_TOO_LARGE, CommitError),
        (Code.REQUEST_TIMED_OUT, KafkaError),
    ],
)
def test_class_by_code(code, kind):
    error = error_for(code, code.name, "why")
    assert type(error) is kind
    assert str(error) == f"why ({code.name})"


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (Code.MSG_SIZE_TOO_LARGE, Fault.REJECTED),
        (Code.INVALID_RECORD, Fault.REJECTED),
        (Code.TOPIC_EXCEPTION, Fault.REJECTED),
        (Code.UNKNOWN_TOPIC_OR_PART, Fault.REJECTED),
        (Code.LOCAL_UNKNOWN_TOPIC, Fault.REJECTED),
        (Code.TOPIC_AUTHORIZATION_FAILED, Fault.REJECTED),
        (Code.LOCAL_QUEUE_FULL, Fault.UNAVAILABLE),
        (Code.LOCAL_PURGE_QUEUE, Fault.UNAVAILABLE),
        (Code.LOCAL_INVALID_DIFFERENT_RECORD, Fault.UNAVAILABLE),
        (Code.SASL_AUTHENTICATION_FAILED, Fault.UNAVAILABLE),
        (Code.LOCAL_MSG_TIMED_OUT, Fault.UNKNOWN),
        (Code.LOCAL_PURGE_INFLIGHT, Fault.UNKNOWN),
        (Code.LOCAL_TRANSPORT, Fault.UNKNOWN),
        (Code.LOCAL_FATAL, Fault.UNKNOWN),
        (Code.LOCAL_FENCED, Fault.UNKNOWN),
        (Code.LOCAL_SSL, Fault.UNKNOWN),
        (12345, Fault.UNKNOWN),
    ],
)
def test_fault_by_code(code, fault):
    assert fault_of(code) is fault


def test_the_sets_do_not_contradict_each_other():
    assert not codes.REJECTED & codes.UNAVAILABLE
    assert not codes.MEMBERSHIP & codes.RETRIABLE


def test_classes_made_by_hand():
    error = UnknownTopicError("no topic orders")
    assert (error.code, error.name, error.fatal, error.retriable) == (3, "UNKNOWN_TOPIC_OR_PART", False, False)
    assert str(KafkaError()) == "Kafka failed."
    assert CommitError("x", code=30, name="GROUP_AUTHORIZATION_FAILED").code == 30


def test_batch_error_speaks_for_its_failure():
    failure = PublishError("too large", fault=Fault.REJECTED, message_id="m-2", limit=5)
    error = ProduceBatchError(1, [Receipt()], failure)
    assert str(error) == "produce batch index 1: too large"
    assert (error.index, error.results, error.fault, error.message_id, error.limit) == (
        1, [Receipt()], Fault.REJECTED, "m-2", 5,
    )  # fmt: skip
    assert isinstance(error, HeadraceError)
