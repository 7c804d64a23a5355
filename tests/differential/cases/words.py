"""Short words for directed programs: all speak of the stream S and, unless they say otherwise, of its consumer c."""

from tests.differential.side import do


def new(**config):
    return do.create("S", **{"subjects": ["S.>"], "duplicate_window": 120.0, **config})


def change(**config):
    return do.update("S", **{"subjects": ["S.>"], "duplicate_window": 120.0, **config})


def other(name, **config):
    """A stream besides S; its name begins with ``S-``."""
    return do.create(name, **{"subjects": [f"{name}.>"], "duplicate_window": 120.0, **config})


def some(count, subject="S.a"):
    return [do.publish(subject, b"m%d" % number) for number in range(count)]


def put(tokens, **options):
    """One message on S.<token> each."""
    return [do.publish(f"S.{token}", **options) for token in tokens]


def big():
    return do.publish("S.a", b"x" * 100)


def make(how="create_or_update", durable="c", **config):
    return do.consumer("S", how, durable=durable, **config)


def made(how="create", **config):
    """Not durable."""
    return do.consumer("S", how, **config)


def drop(name="c"):
    return do.drop("S", name)


def pull(limit=10, name="c", **options):
    return do.pull("S", name, limit, **options)


def fetch(limit, **options):
    return do.fetch("S", "c", limit, **options)


def settle(sequence, how="ack", name="c"):
    """The latest delivery of this message of the stream, wherever it stands in what was handed out."""
    return do.settle_sequence("S", name, sequence, how)


def ack(place):
    return do.settle(place)


def double_ack(place):
    return do.settle(place, "double_ack")


def nak(place, delay=None):
    return do.settle(place, "nak", delay=delay)


def term(place, reason=None):
    return do.settle(place, "term", reason=reason)


def touch(place):
    return do.settle(place, "in_progress")


def remove(sequence):
    return do.remove("S", sequence)


def purge(**options):
    return do.purge("S", **options)
