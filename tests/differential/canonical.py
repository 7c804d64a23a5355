"""What an answer says, as plain data: everything that a user can observe, nothing that must differ (times, texts)."""

from dataclasses import fields, is_dataclass
from enum import Enum


def config_of(config):
    """Every field that is set, by name."""
    return {each.name: value for each in fields(config) if (value := plain(getattr(config, each.name))) not in EMPTY}


def consumer_config_of(config):
    """One replica is as many as none said."""
    found = config_of(config)
    return found if found.get("replicas") != 1 else {name: value for name, value in found.items() if name != "replicas"}


EMPTY = (None, (), {}, False)
BATCH_ID = "Nats-Batch-Id"


def plain(value):
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return config_of(value)
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    return dict(value) if hasattr(value, "keys") else value


def error_of(error):
    """Class and codes; the text is free."""
    found = {"error": type(error).__name__}
    for name in ("code", "err_code", "terminal"):
        found[name] = getattr(error, name, None)
    found["fault"] = plain(getattr(error, "fault", None))
    return found


def ack_of(ack):
    return {"stream": ack.stream, "sequence": ack.sequence, "duplicate": ack.duplicate, "batch": ack.batch_size}


def stream_of(info):
    state = info.state
    return {
        "config": config_of(info.config),
        "messages": state.messages,
        "bytes": state.bytes,
        "first_sequence": state.first_sequence,
        "last_sequence": state.last_sequence,
        "first_time": state.first_time is not None,
        "last_time": state.last_time is not None,
        "consumers": state.consumers,
        "deleted": tuple(state.deleted),
        "num_deleted": state.num_deleted,
        "num_subjects": state.num_subjects,
        "subjects": dict(state.subjects),
    }


def consumer_of(info):
    return {
        "stream": info.stream,
        "name": info.name,
        "config": consumer_config_of(info.config),
        "delivered_consumer": info.delivered.consumer,
        "delivered_stream": info.delivered.stream,
        "floor_consumer": info.ack_floor.consumer,
        "floor_stream": info.ack_floor.stream,
        "num_ack_pending": info.num_ack_pending,
        "num_redelivered": info.num_redelivered,
        "num_pending": info.num_pending,
        "paused": info.paused,
    }


def headers_of(message):
    """The user's in their order, behind ours in that of their names. A batch's id is a random one."""
    pairs = [(name, "" if name == BATCH_ID else value) for name, value in message.headers.items()]
    ours = sorted(pair for pair in pairs if pair[0].startswith("Nats-"))
    return (*ours, *(pair for pair in pairs if not pair[0].startswith("Nats-")))


def raw_of(message):
    return {
        "subject": message.subject,
        "sequence": message.sequence,
        "data": message.data,
        "headers": headers_of(message),
    }


def msg_of(msg):
    facts = msg.metadata
    return {
        "subject": msg.subject,
        "sequence": facts.sequence.stream,
        "number": facts.sequence.consumer,
        "deliveries": facts.num_delivered,
        "pending": facts.num_pending,
        "data": msg.data,
        "headers": headers_of(msg),
        "of": (facts.stream, facts.consumer),
    }
