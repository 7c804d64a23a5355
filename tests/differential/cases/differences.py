"""For every accepted difference the program that shows it: what the page says is still so."""

from tests.differential import accepted
from tests.differential.cases.words import ack, change, drop, made, make, nak, new, pull, purge, put, remove
from tests.differential.side import do

# fmt: off
DIFFERENCES = {
    accepted.first_of_an_unused_stream: [new()],
    accepted.first_after_a_purge_to_a_gap: [new(), *put("abc"), remove(1), remove(3), purge(sequence=3)],
    accepted.places_after_a_purge: [new(), make(), *put("abc"), pull(1), purge()],
    accepted.redelivered_after_raising: [new(), make(max_deliver=1), *put("ab"), pull(), nak(0), pull(),
        make("update", max_deliver=3)],
    accepted.another_first_sequence: [new(first_sequence=5), change()],
    accepted.deleting_under_ack_all: [new(), *put("abc"), make(ack_policy="all"), pull(), remove(2)],
    accepted.ack_all_under_limits: [new(max_messages=3), *put("abc"), make(ack_policy="all"), pull(2), nak(0), pull(1),
        *put("ab")],
    accepted.another_filter_on_interest: [new(retention="interest"), make(filter_subject="S.a"), *put("aa"), pull(1),
        make("update", filter_subject="S.b"), do.info("S")],
    accepted.another_filter_after_a_pull: [new(), *put("bab"), make(filter_subject="S.a"), pull(),
        make("update", filter_subject="S.b")],
    accepted.no_filter_any_more: [new(), make(filter_subject="S.a"), make(), *put("b")],
    accepted.deleting_under_last_per_subject: [new(), *put("abcb"),
        make(deliver_policy="last_per_subject", filter_subject="S.>"), remove(1), pull()],
    accepted.last_per_subject_under_limits: [new(max_messages=2), *put("ab"),
        make(deliver_policy="last_per_subject", filter_subject="S.>"), *put("a"), pull()],
    accepted.purging_some_subjects_under_pending: [new(), *put("abab"), make(), pull(), purge(subject="S.a"), nak(0),
        nak(1), ack(2), ack(3), pull()],
    accepted.miscounted_after_a_purge: [new(), make(filter_subject="S.a"), *put("abac"), purge(keep=3)],
    accepted.another_window_on_interest: [new(retention="interest"), make(filter_subject="S.a"),
        do.publish("S.b", msg_id="0"), change(retention="interest", duplicate_window=30.0),
        do.publish("S.b", msg_id="0")],
    accepted.of_a_deleted_consumer: [new(), *put("ab"), make(), pull(1), drop(), make(), pull(1), ack(0)],
    accepted.all_above_an_exhausted_one: [new(retention="interest"), make(ack_policy="all", max_deliver=1), *put("abc"),
        pull(2), nak(0), pull(), ack(1)],
    accepted.purging_what_was_handed_back: [new(), *put("ab"), make(), pull(), nak(1), purge(sequence=1), pull()],
    accepted.dropping_above_what_nobody_needs: [new(retention="interest"), make(max_deliver=1),
        make(durable="d", filter_subject="S.b"), *put("ab"), pull(), nak(0), pull(), ack(1), drop()],
    accepted.newest_of_all_behind_a_gap: [new(), *put("ab"), remove(2), do.last("S", ">")],
    accepted.beginning_with_the_last_behind_a_gap: [new(), *put("ab"), remove(2), make(deliver_policy="last")],
    accepted.another_choice: [new(), *put("b"), make(deliver_policy="last_per_subject", filter_subject="S.a"),
        make("update", deliver_policy="last_per_subject", filter_subjects=["S.a", "S.b"])],
    accepted.without_direct_get: [new(), *put("a"), do.last_for("S", "S.a")],
    accepted.from_named_to_durable: [new(), made(name="c"), make("update")],
    accepted.together_under_two_limits: [new(), do.publish("S.a.x", b""), do.publish("S.c", b"x" * 130),
        change(max_bytes=300, max_messages_per_subject=1),
        do.publish_async(("S.a", b"x" * 130, None), ("S.c", b"x" * 20, None))],
    accepted.atomic_where_less_is_stored: [
        new(allow_atomic=True, discard="new", max_messages=1, max_messages_per_subject=1), *put("a"),
        do.publish_atomic(("S.a", b"x", None))],
}
