"""Random programs: lists of steps, drawn by hypothesis."""

from datetime import timedelta

from hypothesis import strategies as st

from tests.differential.past import Near
from tests.differential.side import do

SUBJECTS = st.sampled_from(["S.a", "S.b", "S.c", "S.a.x"])
FILTERS = st.sampled_from(["S.a", "S.b", "S.*", "S.>", "S.a.x", ">", "S.none"])
IDS = st.sampled_from(["1", "2", "3", "4"])
BODIES = st.sampled_from([0, 1, 5, 20, 50, 130]).map(lambda length: b"x" * length)
PLACE = st.integers(0, 24)
NEAR = st.integers(-2, 2)


def options(required=None, /, **strategies):
    """A dictionary with some of these; about one in three is given."""
    each = {name: st.none() | st.none() | value for name, value in strategies.items()}
    return st.fixed_dictionaries({**(required or {}), **each}).map(
        lambda found: {name: value for name, value in found.items() if value is not None}
    )


STREAM = options(
    {"duplicate_window": st.sampled_from([600.0, 1200.0])},
    max_messages=st.sampled_from([3, 6]),
    max_bytes=st.sampled_from([150, 300]),
    max_messages_per_subject=st.integers(1, 3),
    discard=st.sampled_from(["old", "new"]),
    discard_new_per_subject=st.booleans(),
    max_message_size=st.sampled_from([40, 90]),
    max_age=st.just(3600.0),
    max_consumers=st.integers(1, 2),
    deny_delete=st.sampled_from([False, False, True]),
    deny_purge=st.sampled_from([False, False, True]),
    allow_rollup=st.just(True),
    description=st.sampled_from(["one", "two"]),
    metadata=st.just({"a": "b"}),
)


def possible(config):
    """Whether anybody takes it: a program whose first step is refused tells little."""
    if config.get("discard_new_per_subject"):
        return config.get("discard") == "new" and "max_messages_per_subject" in config
    return config.get("max_message_size", 0) <= config.get("max_bytes", 1000)


@st.composite
def create(draw, retention):
    """The stream S, with what is fixed in its life and what `update` may change."""
    at = draw(st.sampled_from([None, None, 10]))
    config = draw(STREAM.filter(possible))
    return do.create("S", **fixed(retention), **config, **({"first_sequence": at} if at else {}))


def update(retention):
    return STREAM.map(lambda config: do.update("S", **fixed(retention), **config))


def fixed(retention):
    return {
        "subjects": ["S.>"],
        "retention": retention,
        "allow_message_ttl": True,
        "allow_direct": True,
        "allow_atomic": True,
    }


@st.composite
def expectations(draw, subject):
    return draw(
        options(
            last=NEAR.map(lambda by: Near(None, by)),
            last_for_topic=NEAR.map(lambda by: Near(subject, by)),
            last_id=IDS,
        )
    )


@st.composite
def publish(draw):
    subject = draw(SUBJECTS)
    given = draw(
        options(
            msg_id=IDS,
            headers=st.sampled_from([{"h": "v"}, {"a": ["b", "c"], "A": "d"}]),
            ttl=st.sampled_from([3600.0, timedelta.max]),
            expect_stream=st.sampled_from(["S", "S", "T"]),
            rollup=st.none() | st.sampled_from(["sub", "all"]),
        )
    )
    if draw(st.integers(0, 3)) == 0:
        given["expect"] = draw(expectations(subject))
        if "last_for_topic" in given["expect"] and draw(st.booleans()):
            given["expect_subject"] = draw(SUBJECTS)
    return do.publish(subject, draw(BODIES), **given)


MANY = st.lists(st.tuples(SUBJECTS, BODIES, st.none() | IDS), min_size=1, max_size=6)
PURGE = options(subject=FILTERS, sequence=PLACE, keep=st.integers(0, 3)).map(lambda given: do.purge("S", **given))
READING = st.one_of(
    st.builds(lambda at, subject: do.get("S", at, subject), PLACE, st.none() | FILTERS),
    FILTERS.map(lambda subject: do.last("S", subject)),
    options(subject=FILTERS, start=PLACE, offset=st.integers(0, 3), limit=st.integers(1, 5)).map(
        lambda given: do.read("S", **given)
    ),
    options(
        {"batch": st.integers(1, 6)}, start_sequence=PLACE, subject=FILTERS, max_bytes=st.sampled_from([30, 100])
    ).map(lambda given: do.batch("S", **given)),
    st.builds(
        lambda subjects, given: do.last_for("S", *subjects, **given),
        st.lists(FILTERS, min_size=1, max_size=2),
        options(up_to_sequence=PLACE, batch=st.integers(1, 3)),
    ),
    FILTERS.map(lambda subject: do.info("S", subject=subject)),
    (st.none() | FILTERS).map(do.names),
    FILTERS.map(do.listed),
    SUBJECTS.map(do.by_subject),
)
REMOVING = st.one_of(PURGE, PLACE.map(lambda at: do.remove("S", at)), PLACE.map(lambda at: do.secure_remove("S", at)))
TOGETHER = st.one_of(
    MANY.map(lambda each: do.publish_many(*each)),
    MANY.map(lambda each: do.publish_async(*each)),
    MANY.map(lambda each: do.publish_atomic(*each)),
)
PUBLISHING = st.one_of(publish(), publish(), publish(), TOGETHER, TOGETHER)


@st.composite
def stream_programs(draw):
    """Operations on one stream that nobody consumes."""
    step = st.one_of(PUBLISHING, PUBLISHING, REMOVING, READING, READING, update("limits"))
    first = draw(create("limits"))
    return [first, *draw(st.lists(step, min_size=15, max_size=40))]


POLICIES = st.sampled_from(["all", "all", "new", "last", "by_start_sequence", "last_per_subject"])
FILTERED = st.sampled_from(
    [{}, {}, {"filter_subject": "S.a"}, {"filter_subjects": ["S.a", "S.b"]}, {"filter_subject": "S.>"}]
)
CHANGES = options(
    max_deliver=st.integers(1, 4),
    max_ack_pending=st.integers(1, 5),
    ack_wait=st.sampled_from([600.0, 900.0]),
    backoff=st.sampled_from([[600.0, 700.0], [600.0]]),
    headers_only=st.booleans(),
    description=st.just("d"),
    metadata=st.just({"a": "b"}),
    inactive_threshold=st.just(3600.0),
)


@st.composite
def consumer_config(draw, retention):
    given = draw(CHANGES)
    given |= draw(FILTERED)
    if retention != "workqueue" or draw(st.integers(0, 3)) == 0:
        given["ack_policy"] = draw(st.sampled_from(["explicit", "explicit", "explicit", "all", "none"]))
        given["deliver_policy"] = draw(POLICIES)
        if given["deliver_policy"] == "by_start_sequence":
            given["start_sequence"] = draw(st.integers(1, 8))
        if given["deliver_policy"] == "last_per_subject":
            given |= {} if "filter_subjects" in given else {"filter_subject": "S.a"}
    return given


HOW = st.sampled_from(["ack", "ack", "ack", "nak", "nak", "term", "in_progress", "double_ack"])


@st.composite
def settle(draw):
    how = draw(HOW)
    given = {"delay": draw(st.sampled_from([None, None, 900.0]))} if how == "nak" else {}
    if how == "term":
        given = {"reason": draw(st.sampled_from([None, "because"]))}
    return do.settle(draw(PLACE), how, **given)


@st.composite
def changing(draw, retention, name):
    """What is not everyday's work: one choice among many there, one among few in `consuming`."""
    kinds = st.one_of(
        REMOVING,
        TOGETHER,
        update(retention),
        consumer_config(retention).map(lambda given: do.consumer("S", durable=name, **given)),
        consumer_config(retention).map(lambda given: do.consumer("S", "update", durable=name, **given)),
        st.just(do.drop("S", name)),
        st.just(do.pause("S", name, 3600.0)),
        st.just(do.resume("S", name)),
        st.just(do.consumers_listed("S")),
        st.just(do.ordered("S", 1, deliver_policy="last")),
    )
    return draw(kinds)


@st.composite
def consuming(draw, retention, names):
    """One step on a consumer, or on its stream."""
    name = draw(st.sampled_from(names))
    limit = draw(st.integers(1, 6))
    pulling = st.just(do.pull("S", name, limit)) | st.just(do.fetch("S", name, limit))
    return draw(
        st.one_of(pulling, pulling, settle(), settle(), settle(), publish(), publish(), changing(retention, name))
    )


@st.composite
def consumer_programs(draw):
    """A stream of any retention, one or two consumers, and everything that can happen to them without waiting."""
    retention = draw(st.sampled_from(["limits", "limits", "interest", "workqueue"]))
    names = draw(st.sampled_from(["c", "cd"]))
    before = draw(st.lists(publish(), max_size=6))
    made = [do.consumer("S", "create", durable=name, **draw(consumer_config(retention))) for name in names]
    work = [do.publish("S.a"), do.publish("S.b"), do.publish("S.a"), do.pull("S", "c", 2)]
    steps = draw(st.lists(consuming(retention, names), min_size=15, max_size=40))
    return [draw(create(retention)), *before, *made, *work, *steps]
