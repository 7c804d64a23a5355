"""The accepted differences: each function names its line of docs/embedded-differences.md.

`accepted` makes the answers of both sides equal where that line says that they differ. `avoided` says which steps no
program takes, because what follows them would differ for ever, as that line says.
"""

from datetime import timedelta

from tests.differential.past import filters_of

DELETING = ("remove", "secure_remove", "purge", "publish")
LIMITS = ("max_messages", "max_bytes", "max_messages_per_subject")
ACCEPTED = []
AVOIDED = []


def accepted(line, *steps):
    """Register a function of (answer, what is known of its consumer or stream) for these steps."""

    def register(function):
        function.line = line
        ACCEPTED.append((steps, function))
        return function

    return register


def avoided(line, *steps):
    """Register a function of (past, step): true where a program does not take it."""

    def register(function):
        function.line = line
        AVOIDED.append((steps, function))
        return function

    return register


def normal(step, answer, past):
    """The answer without what the page accepts."""
    if isinstance(answer, list):
        single = {"listed": "info", "consumers_listed": "consumer_info"}.get(step.name)
        return answer if single is None else [_normal(single, each, past) for each in answer]
    return _normal(step.name, answer, past) if isinstance(answer, dict) and "error" not in answer else answer


def _normal(name, answer, past):
    answer = dict(answer)
    for steps, function in ACCEPTED:
        if name in steps:
            function(answer, past)
    return answer


def is_avoided(step, past):
    return any(step.name in steps and function(past, step) for steps, function in AVOIDED)


def _known(answer, past):
    return past.consumer(answer["stream"], answer["name"])


def _deletes(step):
    """A publish does by a rollup."""
    return step.name != "publish" or step.options.get("rollup") is not None


def _stream(step):
    """The stream that a step is about: its subjects begin with its name."""
    return step.arguments[0].partition(".")[0]


@accepted("a stream that never had a message shows `first_sequence` 0", "info")
def first_of_an_unused_stream(answer, past):
    if answer["first_sequence"] == 0:
        answer["first_sequence"] = answer["last_sequence"] + 1
        answer["deleted"] = tuple(filter(None, answer["deleted"]))
        answer["num_deleted"] = len(answer["deleted"])


@accepted("a purge up to the last sequence, whose message was deleted before", "info")
def first_after_a_purge_to_a_gap(answer, past):
    one = past.streams.get(answer["config"]["name"])
    if answer["messages"] == 0 and one is not None and one.purged_to:
        for name in ("first_sequence", "first_time", "deleted", "num_deleted"):
            answer.pop(name, None)


@accepted("a purge moves `delivered` and the ack floor", "consumer_info")
def places_after_a_purge(answer, past):
    one = _known(answer, past) or past.streams.get(answer["stream"])  # an ordered reader's is known by its stream
    if one is not None and one.purged:
        for name in ("delivered_stream", "floor_stream", "floor_consumer"):
            del answer[name]


@accepted("`num_redelivered` counts exhausted messages", "consumer_info")
def redelivered_after_raising(answer, past):
    one = _known(answer, past)
    if one is not None and one.raised:
        del answer["num_redelivered"]


@avoided("`first_sequence` update accepted", "update", "create_or_update")
def another_first_sequence(past, step):
    one = past.streams.get(step.arguments[0])
    return one is not None and step.options.get("first_sequence") != one.config.get("first_sequence")


@avoided("deleting a message that an ack-all consumer holds", *DELETING)
def deleting_under_ack_all(past, step):
    return _deletes(step) and any(one.config["ack_policy"] == "all" for one in past.consumers(_stream(step)))


@avoided("a filter change drops what is pending", "consumer")
def another_filter_on_interest(past, step):
    one = past.streams.get(step.arguments[0])
    return one is not None and one.was_interest and _changes_filter(past, step)


@avoided("a filter change does not look again", "consumer")
def another_filter_after_a_pull(past, step):
    known = past.consumer(step.arguments[0], step.options.get("durable"))
    looked = known is not None and (known.told.get("delivered_consumer", 0) > 0 or known.deleted)
    return looked and _changes_filter(past, step) and not past.streams[step.arguments[0]].was_interest


@avoided("an update takes the filters of a consumer away", "consumer")
def no_filter_any_more(past, step):
    return _changes_filter(past, step) and not filters_of(step.options)


def _changes_filter(past, step):
    known = past.consumer(step.arguments[0], step.options.get("durable"))
    return known is not None and filters_of(known.config) != filters_of(step.options)


@avoided("last per subject, and a chosen message is deleted", *DELETING)
def deleting_under_last_per_subject(past, step):
    chosen = any(one.config["deliver_policy"] == "last_per_subject" for one in past.consumers(_stream(step)))
    return chosen and _deletes(step)


@avoided("last per subject, and a chosen message is deleted", "consumer", "update")
def last_per_subject_under_limits(past, step):
    return _under_limits(past, step, "deliver_policy", "last_per_subject")


@avoided("deleting a message that an ack-all consumer holds", "consumer", "update")
def ack_all_under_limits(past, step):
    return _under_limits(past, step, "ack_policy", "all")


def _under_limits(past, step, field, value):
    """Whether there would be such a consumer, and a stream that deletes messages by itself."""
    one = past.streams.get(step.arguments[0])
    if one is None:
        return False
    if step.name == "update":
        limited = any(name in step.options for name in LIMITS)
        return limited and any(each.config[field] == value for each in one.consumers.values())
    return step.options.get(field) == value and any(name in one.config for name in LIMITS)


@avoided("after a purge of some subjects, an ack may settle", "purge", "publish")
def purging_some_subjects_under_pending(past, step):
    pending = any(one.told.get("num_ack_pending") for one in past.consumers(_stream(step)))
    return pending and (step.options.get("subject") is not None or step.options.get("rollup") == "sub")


@avoided("a purge, or a rollup, forgets what was handed back", "purge", "publish")
def purging_what_was_handed_back(past, step):
    return _deletes(step) and any(one.handed_back for one in past.consumers(_stream(step)))


@avoided("after a purge that keeps some, or a rollup of all, `num_pending`", "purge", "publish")
def miscounted_after_a_purge(past, step):
    filtered = any(filters_of(one.config) for one in past.consumers(_stream(step)))
    return filtered and (step.options.get("keep") is not None or step.options.get("rollup") == "all")


@avoided("a change of `duplicate_window` may forget", "update", "create_or_update")
def another_window_on_interest(past, step):
    one = past.streams.get(step.arguments[0])
    if one is None or not one.was_interest:
        return False
    return timedelta(seconds=step.options.get("duplicate_window") or 120) != one.config["duplicate_window"]


@avoided("settling a message of a consumer that was deleted", "settle")
def of_a_deleted_consumer(past, step):
    held = past.handed_out(step.arguments[0])
    return held is not None and past.drops[held.stream, held.consumer] != held.drops


@avoided("an acknowledgement of an ack-all consumer leaves an exhausted message", "settle")
def all_above_an_exhausted_one(past, step):
    held = past.handed_out(step.arguments[0])
    known = held and past.consumer(held.stream, held.consumer)
    if not known or known.config["ack_policy"] != "all" or step.arguments[1:] in {("nak",), ("in_progress",)}:
        return False
    floor, pending = (known.told.get(name, 0) for name in ("floor_stream", "num_ack_pending"))
    above = {one.sequence for one in past.held if one[:3] == held[:3] and one.sequence > floor}
    interest = past.streams[held.stream].config["retention"] == "interest"
    return interest and held.sequence in above and len(above) > pending


@avoided("deleting a consumer of an interest stream leaves", "drop")
def dropping_above_what_nobody_needs(past, step):
    stream, name = step.arguments
    one, known = past.streams.get(stream), past.consumer(stream, name)
    if known is None or one.config["retention"] != "interest" or len(one.consumers) == 1:
        return False
    least, floor = known.least_deliver, known.told.get("floor_stream", 0)
    given = {each.sequence for each in past.held if each[:2] == (stream, name) and each.deliveries >= least}
    return one.ahead or any(each <= floor and _is_there(one, each) for each in given)


def _is_there(one, sequence):
    return sequence >= one.told["first_sequence"] and sequence not in one.told["deleted"]


@avoided("the newest of several subjects needs `allow_direct`", "last_for")
def without_direct_get(past, step):
    one = past.streams.get(step.arguments[0])
    return one is not None and not one.config.get("allow_direct")


@avoided("the newest of all subjects, and the last message was deleted", "last")
def newest_of_all_behind_a_gap(past, step):
    one = past.streams.get(step.arguments[0])
    return step.arguments[1] == ">" and one is not None and one.told.get("last_sequence") in one.told.get("deleted", ())


@avoided("the newest of all subjects, and the last message was deleted", "consumer", "ordered")
def beginning_with_the_last_behind_a_gap(past, step):
    one = past.streams.get(step.arguments[0])
    newest = step.options.get("deliver_policy") == "last" and not filters_of(step.options)
    return newest and one is not None and one.told.get("last_sequence") in one.told.get("deleted", ())


@avoided("another filter for a last-per-subject consumer", "consumer")
def another_choice(past, step):
    known = past.consumer(step.arguments[0], step.options.get("durable"))
    chosen = known is not None and known.config["deliver_policy"] == "last_per_subject"
    return chosen and _changes_filter(past, step)


@avoided("an update from named to durable", "consumer")
def from_named_to_durable(past, step):
    known = past.consumer(step.arguments[0], step.options.get("durable") or step.options.get("name"))
    given = "inactive_threshold" in step.options
    return known is not None and not given and known.config.get("durable") != step.options.get("durable")


@avoided("of two limits, what the first pushes out", "publish_many", "publish_async")
def together_under_two_limits(past, step):
    return any("max_messages_per_subject" in one.config and _is_limited(one) for one in past.streams.values())


@avoided("discard new: an atomic publish must fit beside what is there", "publish_atomic")
def atomic_where_less_is_stored(past, step):
    """By replacing, or because nobody wants it."""
    full = [one.config for one in past.streams.values() if one.config["discard"] == "new" and _is_limited(one)]
    return any("max_messages_per_subject" in config or config["retention"] == "interest" for config in full)


def _is_limited(one):
    return bool({"max_bytes", "max_messages"} & one.config.keys())
