"""What the pages list is what there is: public names, options, and the names of the "coming from" tables."""

import importlib
import re
from dataclasses import MISSING, fields
from datetime import timedelta
from enum import Enum

import pytest

from headrace.cli.exits import ExitCode
from headrace.core import errors
from headrace.core.broker import SubscribeOptions
from headrace.embedded import EmbeddedOptions
from headrace.flow.retry import RetryPolicy
from headrace.jetstream import JetStreamOptions
from headrace.kafka import (
    KafkaOptions,
    KafkaPartitionOptions,
    KafkaReadOptions,
    KafkaSecurity,
    KafkaSubscribeOptions,
    MemoryOffsetStore,
)
from headrace.nats import ConnectionOptions
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
ROOMS = dict(re.findall(r"^## `([\w.]+)`$(.*?)(?=^## |\Z)", REFERENCE, re.DOTALL | re.MULTILINE))
PUBLIC = [
    "headrace",
    "headrace.deadletters",
    "headrace.embedded",
    "headrace.flow",
    "headrace.flow.middleware",
    "headrace.jetstream",
    "headrace.kafka",
    "headrace.nats",
    "headrace.streams",
    "headrace.testing",
    "headrace.testing.kafka",
    "headrace.testing.nats",
]


def rows(text):
    """The rows of the tables: lists of cells. A pipe inside a cell stands behind a backslash."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_reference_has_every_room():
    assert sorted(ROOMS) == PUBLIC


@pytest.mark.parametrize("room", PUBLIC)
def test_the_reference_has_every_public_name_once(room):
    listed = [name.strip("`") for name, what in rows(ROOMS[room])[1:] if what]
    assert listed == list(importlib.import_module(room).__all__)


def shown(value):
    """A default as the page writes it."""
    if isinstance(value, Enum):
        return f"`{type(value).__name__}.{value.name}`"
    if isinstance(value, timedelta):
        milliseconds = value // timedelta(milliseconds=1)
        return f"{milliseconds} ms" if milliseconds % 1000 else f"{milliseconds // 1000} s"
    if isinstance(value, float):
        return f"{value * 1000:g} ms" if value < 1 else f"{value:g} s"
    if isinstance(value, MemoryOffsetStore):
        return "`MemoryOffsetStore()`"
    if isinstance(value, RetryPolicy):
        changed = [each.name for each in fields(value) if getattr(value, each.name) != each.default]
        return f"`RetryPolicy({', '.join(f'{name}={getattr(value, name)!r}' for name in changed)})`"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value >> 20} MiB" if value >= 1 << 20 else f"{value:,}"
    return "`ConnectionOptions()`" if value == ConnectionOptions() else f"`{value}`"


@pytest.mark.parametrize(
    ("heading", "made", "base"),
    [
        ("Options of a store", EmbeddedOptions(), None),
        ("Options of streams on a server", JetStreamOptions(), None),
        ("Options of a connection to NATS", ConnectionOptions(), None),
        ("Options of Kafka", KafkaOptions(), None),
        ("Security of Kafka", KafkaSecurity(), None),
        ("Options of a subscription", SubscribeOptions(), None),
        ("Options of reading Kafka", KafkaReadOptions(), SubscribeOptions),
        ("Options of a group on Kafka", KafkaSubscribeOptions(), KafkaReadOptions),
        ("Options of one partition of Kafka", KafkaPartitionOptions(partition=0), KafkaReadOptions),
    ],
)
def test_the_options_of_an_engine(heading, made, base):
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    table = text.partition(f"## {heading}\n")[2].partition("## ")[0]
    listed = [(name.strip("`"), default) for name, default, _ in rows(table)[1:]]
    elsewhere = {field.name for field in fields(base)} if base else set()
    own = [field for field in fields(made) if field.name not in elsewhere]
    assert listed == [
        (field.name, "required" if _is_required(field) else shown(getattr(made, field.name))) for field in own
    ]


def _is_required(field):
    return field.default is MISSING and field.default_factory is MISSING


def test_the_exit_codes():
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    table = text.partition("| exit code |")[2]
    assert [int(code) for code, _ in rows("| exit code |" + table)[1:]] == [code.value for code in ExitCode]


@pytest.mark.parametrize("page", sorted((DOCS / "coming-from").glob("*.md")), ids=lambda page: page.name)
def test_the_classes_on_a_coming_from_page_exist(page):
    known = {name for room in PUBLIC for name in vars(importlib.import_module(room))} | set(vars(errors))
    known |= {"ValueError", "TimeoutError"}
    used = set()
    for there, here, *_ in rows(page.read_text(encoding="utf-8")):
        assert there
        used |= set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z0-9]+|\d+)+\b", " ".join(re.findall(r"`([^`]*)`", here))))
    assert used
    assert used <= known, f"not there: {sorted(used - known)}"


SEEDS = {
    "go-msg.md": "Attributes Get Set Message MessageWriter Write Close ErrClosedMessageWriter ErrServerClosed Receiver "
    "Receive ReceiverFunc SafeReceiver NewSafeReceiver Server Serve Shutdown Topic NewWriter TopicFunc",
    "jetstream.md": "New NewWithAPIPrefix NewWithDomain CreateStream UpdateStream DeleteStream ListStreams StreamNames "
    "CreateOrUpdateConsumer OrderedConsumer DeleteConsumer ListConsumers ConsumerNames Info CachedInfo Purge GetMsg "
    "GetLastMsgForSubject DeleteMsg SecureDeleteMsg Fetch FetchBytes FetchNoWait FetchMaxWait Next Messages Consume "
    "Publish PublishMsg PublishAsync PublishMsgAsync PublishAsyncPending PublishAsyncComplete Ack DoubleAck Nak "
    "NakWithDelay InProgress Term Metadata PullMaxMessages PullMaxBytes PullExpiry PullHeartbeat PullThresholdMessages "
    "PullThresholdBytes WithMsgID WithExpectStream WithExpectLastSequence WithExpectLastSequencePerSubject "
    "WithExpectLastMsgID WithRetryAttempts WithRetryWait WithStallWait WithPurgeSubject WithPurgeSequence "
    "WithPurgeKeep WithGetMsgSubject WithClientTrace StreamConfig ConsumerConfig OrderedConsumerConfig",
    "xkafka.md": "GroupConsumer NewGroupConsumer GroupConsumerConfig Consume Close Validate Brokers GroupID Topics "
    "PartitionConsumer NewPartitionConsumer PartitionConsumerConfig Topic Partition String SaramaConfig ShardCount "
    "ShardQueueSize DefaultShardCount DefaultShardQueueSize GlobalHandlers TopicHandlers KeyExtractor Logger "
    "LoggerHandlerEnabled RetryConfig ExhaustedPolicy DLQ DLQConfig FailureHook OffsetStore Load Save InitialOffset "
    "Reconnect BackoffConfig InitialBackoff MaxBackoff Multiplier ChainMode ChainModeAppend ChainModeReplace "
    "ConsumeTopicHandlers ProduceTopicHandlers Mode Handlers Handler HandlerFunc MessageContext MemoryOffsetStore "
    "NewMemoryOffsetStore DefaultRetryInitialBackoff DefaultRetryMaxBackoff DefaultRetryMultiplier InfiniteRetries "
    "DefaultPartitionReconnectInitialBackoff DefaultPartitionReconnectMaxBackoff "
    "DefaultPartitionReconnectMultiplier ExhaustedPolicyBlock ExhaustedPolicyDLQCommit ExhaustedPolicyStop "
    "FailureEvent FailureStage FailureStageRetry FailureStageExhausted FailureStageDLQ FailureStageStop Producer "
    "NewProducer ProducerConfig DefaultTopic SyncProducer Dispatch ProducerDispatchConfig WorkerCount QueueSize "
    "DefaultProducerWorkerCount ProducerDispatchMode DefaultProducerDispatchMode ProducerDispatchModeSerial "
    "ProducerDispatchModeKeySharded ProducerDispatchModeParallel ProducerExhaustedPolicy "
    "ProducerExhaustedPolicyBlock ProducerExhaustedPolicyStop ProducerExhaustedPolicyDrop ProducerFailureEvent "
    "ProducerFailureHook ProducerFailureStage ProducerFailureStageRetry ProducerFailureStageExhausted "
    "ProducerFailureStageStop ProducerFailureStageDrop ErrProducerClosed ErrNilProducerMessage "
    "ErrProducerTopicRequired ErrProducerDropped Produce ProduceAsync ProduceBatch ProduceBatchReport Future Await "
    "BatchItemResult Message Value Result New Config XKAFKA_BROKERS XKAFKA_TOPIC XKAFKA_GROUP_ID XKAFKA_PARTITION "
    "XKAFKA_TIMEOUT",
}
"""What the library of origin exports, and a reader will look for."""


@pytest.mark.parametrize("page", sorted(SEEDS))
def test_every_name_of_the_library_of_origin_is_answered(page):
    words = set()
    for there, *_ in rows((DOCS / "coming-from" / page).read_text(encoding="utf-8")):
        words |= set(re.findall(r"\w+", there))
    assert set(SEEDS[page].split()) <= words
