"""The shipped checks of both contracts on the older servers that are promised.

`make test` asks the oldest one for all that does not take whole seconds, and the others for what is theirs of it: the
checks of streams, on which the broker stands. The rest is for `make chaos`.
"""

from functools import cache

import pytest

from headrace.core.broker import Capabilities
from headrace.core.errors import UnsupportedError
from headrace.testing.conformance import broker_checks, stream_checks
from tests.conformance.together import accounts, judged
from tests.integration.jetstream.versions import OLDER, server_of

LONG = {
    "ack_is_final", "ack_wait_redelivers", "backoff_replaces_wait", "dedup_outlives_ack", "deliver_policies_begin",
    "extend_keeps", "flush_confirms", "idle_consumer_goes", "in_progress_restarts_wait", "late_settle_counted",
    "lease_expires", "lists_are_complete", "max_age_removes", "nak_delay_exact", "nak_delay_never_early",
    "no_wait_ends_at_max_ack_pending", "old_buffer_not_handed_out", "pause_resume", "reject_is_final",
    "replay_keeps_the_gaps", "settle_survives_second_cancel", "stale_ack_counts", "start_false_after_lease",
    "term_is_final", "ttl_ends_one_message",
}  # fmt: skip
SINCE = {"atomic_batch_all_or_none": (2, 12), "pause_resume": (2, 11)}


def every_check():
    checks = [("broker", each.name) for each in broker_checks(Capabilities())]
    checks += [("stream", each.name) for each in stream_checks(Capabilities())]
    for version in OLDER:
        for kind, name in checks:
            later = name in LONG or (kind == "broker" and version != OLDER[0])
            yield pytest.param(version, kind, name, marks=pytest.mark.chaos if later else ())


@pytest.fixture(scope="session")
def verdicts(request):
    """Of a version: what its checks come to, of those that are selected. All run for the first that asks."""
    items = [item for item in request.session.items if getattr(item, "function", None) is test_an_older_server]

    @cache
    def of(version):
        params = [item.callspec.params for item in items if item.callspec.params["version"] == version]
        wanted = [(each["kind"], each["name"]) for each in params]
        with server_of(version, config=accounts(2 * len(wanted))) as server:
            return judged(wanted, lambda number: server.url.replace("//", f"//u{number}:p@"))

    return of


@pytest.mark.timeout(300)  # of the first; it waits for all of them
@pytest.mark.parametrize(("version", "kind", "name"), [*every_check()])
def test_an_older_server(version, kind, name, verdicts):
    verdict = verdicts(version)[kind, name]
    since = SINCE.get(name, (2, 10))
    if tuple(map(int, version.split("."))) < since:
        assert isinstance(verdict, UnsupportedError)
        assert f" needs nats-server {since[0]}.{since[1]}, this is {version}" in str(verdict)
    elif isinstance(verdict, Exception):
        raise verdict
    elif verdict:
        pytest.skip(verdict)
