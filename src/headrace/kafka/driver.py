"""The one file that knows confluent-kafka: its settings, its clients, its errors. It is imported when first used.

Nothing here is asynchronous. A client belongs to one thread, and says what it has to say (log lines, error events) only
while that thread polls it. Making one may block (for a bearer token the driver waits 1 to 10 s): not on the loop.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.core.duration import seconds_of
from headrace.core.errors import ConfigError
from headrace.kafka.codes import Code
from headrace.kafka.errors import KafkaError, error_for
from headrace.kafka.log import LOGGER, DriverLog
from headrace.kafka.options import DriverValue, KafkaOptions, KafkaSecurity, Token
from headrace.kafka.reading import KafkaReadOptions, KafkaSubscribeOptions

if TYPE_CHECKING:
    from confluent_kafka import (
        Consumer,
        ConsumerGroupTopicPartitions,
        IsolationLevel,
        KafkaException,
        Message,
        Producer,
        TopicCollection,
        TopicPartition,
    )
    from confluent_kafka import KafkaError as DriverError
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._config import ConfigResource
    from confluent_kafka.admin._listoffsets import OffsetSpec
    from confluent_kafka.admin._resource import ResourceType
    from confluent_kafka.cimpl import NewPartitions, NewTopic

__all__ = [
    "OFFSET_BEGINNING",
    "OFFSET_END",
    "OFFSET_INVALID",
    "OFFSET_STORED",
    "AdminClient",
    "Config",
    "ConfigResource",
    "Consumer",
    "ConsumerGroupTopicPartitions",
    "DriverError",
    "IsolationLevel",
    "KafkaException",
    "Message",
    "NewPartitions",
    "NewTopic",
    "OffsetSpec",
    "Producer",
    "ResourceType",
    "TopicCollection",
    "TopicPartition",
    "admin",
    "admin_config",
    "check_names",
    "common_config",
    "consumer",
    "consumer_config",
    "producer",
    "producer_config",
    "require",
    "translated",
]

Config = dict[str, Any]
"""Settings by the driver's names."""

OFFSET_BEGINNING = -2
OFFSET_END = -1
OFFSET_STORED = -1000
OFFSET_INVALID = -1001
"""The driver's numbers for places that are no offsets: the oldest, the next to be written, the committed one, none."""

_PACKAGE = "confluent_kafka"
_NAMES = {
    **dict.fromkeys(("AdminClient", "ConfigResource", "NewPartitions", "NewTopic", "OffsetSpec"), f"{_PACKAGE}.admin"),
    **dict.fromkeys(("Consumer", "ConsumerGroupTopicPartitions", "IsolationLevel", "KafkaException"), _PACKAGE),
    **dict.fromkeys(("Message", "Producer", "TopicCollection", "TopicPartition"), _PACKAGE),
    "DriverError": _PACKAGE,
    "ResourceType": f"{_PACKAGE}.admin",
}
_END = "headrace.end"
"""A setting that the driver cannot know."""
_PROTOCOLS = {"plaintext": "plaintext", "tls": "ssl", "sasl_plaintext": "sasl_plaintext", "sasl_tls": "sasl_ssl"}
_FATAL = "Fatal error: "
_SECRETS = ("sasl.password", "ssl.key.password")
_CERTIFICATE = re.compile(
    r"certificate verify failed"
    r"|alert (bad certificate|certificate (expired|required|revoked|unknown)|unknown ca|unsupported certificate)"
)
"""What OpenSSL says when one side refuses the other's certificate: ours theirs, or (an alert) they ours."""
_GROUP_PROTOCOLS = {"cooperative": "cooperative-sticky", "eager": "range"}


def require() -> None:
    """Import the driver (0.2 s, the first time). ``ImportError`` that says what to install if it is missing."""
    try:
        importlib.import_module(_PACKAGE)
    except ImportError as error:
        raise ImportError("Kafka needs its driver: pip install 'headrace[kafka]'") from error


def __getattr__(name: str) -> Any:
    """The driver's own classes, imported when they are asked for: ``driver.TopicPartition`` and the like."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require()
    found = getattr(importlib.import_module(_NAMES[name]), "KafkaError" if name == "DriverError" else name)
    globals()[name] = found
    return found


# --- settings --------------------------------------------------------------------------------------


def common_config(servers: Sequence[str], options: KafkaOptions) -> Config:
    """What every client needs; `driver_options` are not in it yet. ``ConfigError`` for a file that cannot be read."""
    config: Config = {"bootstrap.servers": ",".join(servers), "client.id": options.client_id}
    if options.security is not None:
        config |= _security(options.security)
    return config


def consumer_config(
    servers: Sequence[str], options: KafkaOptions, reading: KafkaReadOptions, group: str | None = None
) -> Config:
    """Settings of a consumer that commits and seeks by our hand only.

    `group`: default the one of `reading`. Without one the driver still wants a name, and may ask (in vain, where an ACL
    forbids it) for its coordinator; nothing is joined or committed as long as nobody subscribes or commits.
    """
    group = reading.group if group is None else group
    config = common_config(servers, options) | {
        "group.id": options.client_id if group is None else group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "isolation.level": reading.isolation,
        "check.crcs": True,
        "fetch.queue.backoff.ms": 10,  # the default, 1000, stalls a fast reader
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 16_384,
    }
    if isinstance(reading, KafkaSubscribeOptions):
        config |= _membership(reading)
    return config | dict(options.driver_options)


def producer_config(servers: Sequence[str], options: KafkaOptions) -> Config:
    """Settings of a producer that stores each record once and in order, and repeats by itself."""
    timeout = options.delivery_timeout
    return (
        common_config(servers, options)
        | {
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 0 if timeout is None else _milliseconds(seconds_of(timeout, "delivery_timeout")),
            "linger.ms": seconds_of(options.linger, "linger") * 1000,
            "compression.type": options.compression,
            "message.max.bytes": options.max_message_bytes,
            "queue.buffering.max.kbytes": options.max_buffered_bytes // 1024,
            "queue.buffering.max.messages": 0,  # no limit but that of the sender's places and the bytes above
            "partitioner": options.partitioner,
        }
        | dict(options.driver_options)
    )


def admin_config(servers: Sequence[str], options: KafkaOptions) -> Config:
    """Settings of an admin client."""
    return common_config(servers, options) | dict(options.driver_options)


def _security(security: KafkaSecurity) -> Config:
    for name in ("ca_file", "certificate_file", "key_file"):
        path = getattr(security, name)
        if path is not None and not os.access(path, os.R_OK):  # the driver's own words do not name the file
            raise ConfigError(f"{name} cannot be read: {str(path)!r}")
    given = {
        "security.protocol": _PROTOCOLS[security.protocol],
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.username,
        "sasl.password": security.password,
        "ssl.ca.location": security.ca_file,
        "ssl.certificate.location": security.certificate_file,
        "ssl.key.location": security.key_file,
        "ssl.key.password": security.key_password,
    }
    config: Config = {name: str(value) for name, value in given.items() if value is not None}
    if security.protocol.endswith("tls"):
        config |= {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
    if security.token is not None:
        config["oauth_cb"] = _bearer(security.token)
    return config


def _bearer(ask: Callable[[], Token]) -> Callable[[str], tuple[str, float]]:
    """The driver's form of a token callback: it swallows what is raised, so the log says it, without any content."""

    def answer(_: str) -> tuple[str, float]:
        try:
            token = ask()
            return token.value, token.expires.timestamp()
        except Exception as error:
            LOGGER.warning("the token callback failed: %s", type(error).__name__)
            raise

    return answer


def _membership(reading: KafkaSubscribeOptions) -> Config:
    config: Config = {"max.poll.interval.ms": _milliseconds(reading.seconds("max_poll_interval"))}
    if reading.group_instance_id is not None:
        config["group.instance.id"] = reading.group_instance_id
    if reading.group_protocol == "consumer":
        return config | {"group.protocol": "consumer"}
    session = _milliseconds(reading.session_seconds)
    return config | {
        "group.protocol": "classic",
        "partition.assignment.strategy": _GROUP_PROTOCOLS[reading.group_protocol],
        "session.timeout.ms": session,
        "heartbeat.interval.ms": max(1, min(3_000, session // 3)),
    }


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def check_names(driver_options: Mapping[str, DriverValue]) -> None:
    """``ConfigError`` for a name or value that the driver does not take; no client is made, nothing is connected.

    The driver reads its settings in order and makes the client after that, so a last one that it cannot know tells
    whether all others were good.
    """
    require()
    try:
        __getattr__("Producer")({**driver_options, _END: ""})
    except Exception as error:
        text = _text_of(error)
        if _END not in text:
            raise ConfigError(f"driver_options: {text}") from error


# --- clients ---------------------------------------------------------------------------------------

OnError = Callable[[KafkaError], None]


def consumer(config: Config, log: DriverLog, on_error: OnError | None = None) -> Consumer:
    """A consumer. ``ConfigError`` for settings that the driver refuses, else ``KafkaError``.

    `on_error` is told of each error event by the polling thread; it must not raise.
    """
    made: Consumer = _client("Consumer", config, log, on_error)
    return made


def producer(config: Config, log: DriverLog, on_error: OnError | None = None) -> Producer:
    """A producer; see `consumer`."""
    made: Producer = _client("Producer", config, log, on_error)
    return made


def admin(config: Config, log: DriverLog, on_error: OnError | None = None) -> AdminClient:
    """An admin client; see `consumer`. It has to be polled too: a refused login is an error event and nothing else.

    A refused certificate is told as a refused login, which nobody waits for: this client is the one that opens.
    """

    def told(error: KafkaError) -> None:
        if on_error is not None:
            on_error(_as_login(error))

    made: AdminClient = _client("AdminClient", config, log, told)
    return made


def _client(name: str, config: Config, log: DriverLog, on_error: OnError | None) -> Any:
    def failed(given: DriverError) -> None:
        error = translated(given)
        log.failed(error)
        if on_error is not None:
            on_error(error)

    make = __getattr__(name)
    try:
        return make({**config, "error_cb": failed}, logger=log)
    except (TypeError, ValueError) as error:
        raise ConfigError(_hidden(str(error), config)) from None
    except Exception as error:  # noqa: BLE001  (nothing of the driver's escapes)
        found = translated(error)
        text = _hidden(_text_of(error), config)
        if found.code == Code.LOCAL_INVALID_ARG:
            raise ConfigError(text) from None
        raise error_for(found.code, found.name, text, fatal=found.fatal) from None


def _as_login(error: KafkaError) -> KafkaError:
    """The driver has one code for a handshake that was cut short, which passes, and for a certificate refused."""
    if error.code not in {Code.LOCAL_SSL, Code.LOCAL_TRANSPORT} or not _CERTIFICATE.search(str(error)):
        return error
    text = str(error).removesuffix(f" ({error.name})")
    return error_for(Code.LOCAL_AUTHENTICATION, "_AUTHENTICATION", text)


def _hidden(text: str, config: Config) -> str:
    """`text` without the secrets of `config`."""
    for name in _SECRETS:
        if secret := config.get(name):
            text = text.replace(secret, "…")
    return text


# --- errors ----------------------------------------------------------------------------------------


def translated(error: DriverError | BaseException) -> KafkaError:
    """Our error for one of the driver: an error value, or anything that one of its calls raised (the cause)."""
    value: Any = error.args[0] if isinstance(error, BaseException) and error.args else error
    if isinstance(value, __getattr__("DriverError")):
        return _fatal(value) if value.code() == Code.LOCAL_FATAL else _ours(value)
    if isinstance(error, BufferError):
        return error_for(Code.LOCAL_QUEUE_FULL, "_QUEUE_FULL", str(error))
    if isinstance(error, RuntimeError):  # "Consumer closed" and the like
        return error_for(Code.LOCAL_STATE, "_STATE", str(error))
    return error_for(Code.LOCAL_FAIL, "_FAIL", f"{type(error).__name__}: {error}")


def _ours(value: DriverError) -> KafkaError:
    return error_for(value.code(), value.name(), value.str(), fatal=value.fatal(), retriable=value.retriable())


def _fatal(value: DriverError) -> KafkaError:
    """What ended a client for good. Handed out as a record it is not marked so, and its cause stands in its text."""
    text, made = value.str(), __getattr__("DriverError")
    for code in Code:
        cause = made(int(code))
        if text.startswith(f"{_FATAL}{cause.str()}: "):
            return error_for(code, cause.name(), text.removeprefix(_FATAL), fatal=True)
    return error_for(Code.LOCAL_FATAL, value.name(), text, fatal=True)


def _text_of(error: BaseException) -> str:
    value: Any = error.args[0] if error.args else None
    return str(value.str()) if isinstance(value, __getattr__("DriverError")) else str(error)
