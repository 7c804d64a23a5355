"""Policy x failure x ordering x what the broker can: what is settled, and which events are told (messages.md 3.8)."""

from itertools import product

import pytest

from headrace.core.delivery import ACK, RELEASE, Nak, Reject
from headrace.core.errors import CodecError, HandlerError, RejectError, RetryLaterError
from headrace.flow import BLOCK, DROP, STOP, DeadLetter, Ordering, RetryPolicy, Topic, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker

POLICIES = {"none": None, "letter": DeadLetter(), "drop": DROP, "block": BLOCK, "stop": STOP}
FAILURES = {
    "fails": lambda: ValueError("no"),
    "rejects": lambda: RejectError("never"),
    "garbled": lambda: CodecError("not JSON"),
    "later": lambda: RetryLaterError(7),
}
ENDINGS = {"letter": "dead_letter", "drop": "drop", "stop": "stop", "none": "stop"}
FAILED_RUNS = 3
CASES = [
    (policy, failure, ordering, naks)
    for policy, failure, ordering, naks in product(POLICIES, FAILURES, Ordering, (True, False))
    if (policy, ordering) != ("block", Ordering.NONE)  # refused at construction
]


def expected(policy, failure, ordering, naks):
    """(events, waits handed to the broker, last outcome): written from the specification, not from the judge."""
    hopeless = failure in ("rejects", "garbled")
    again, exhausted = ("retry", True), [("retry", False), ("exhausted", False)]
    wait = [7.0] * 3 if failure == "later" else [1.0, 2.0, 4.0]
    if policy == "block":
        last = 0 if hopeless else 1  # the run after which it would have ended
        events = [again] * FAILED_RUNS
        events.insert(last + 1, ("exhausted", True))
        retries = FAILED_RUNS
        outcome = ACK
    elif policy == "none" and not hopeless:
        events, retries, outcome = [again] * FAILED_RUNS, FAILED_RUNS, ACK
    else:
        retries = 0 if hopeless else 1
        events = [again] * retries + [*exhausted, (ENDINGS[policy], False)]
        outcome = {"letter": ACK, "drop": Reject, "stop": RELEASE, "none": RELEASE}[policy]
    return events, wait[:retries] if ordering is Ordering.NONE and naks else [], outcome


@pytest.mark.parametrize(("policy", "failure", "ordering", "naks"), CASES)
@virtual_time
async def test_the_whole_matrix(policy, failure, ordering, naks):
    events, waits, outcome = expected(policy, failure, ordering, naks)
    broker, told, attempts = ScriptedBroker(delayed_nak=naks), [], []
    await Topic(broker, "orders").send(b"x", key="k")

    def fail(delivery, run):
        attempts.append(delivery.attempt)
        return FAILURES[failure]() if run <= FAILED_RUNS else None

    handler = RecordingHandler(fail=fail)
    retry = RetryPolicy(max_attempts=None if policy == "none" else 2, jitter=0)
    worker = Worker(
        broker, "orders", handler, group="g", ordering=ordering, retry=retry, on_exhausted=POLICIES[policy],
        on_failure=told.append,
    )  # fmt: skip
    stops = events[-1][0] == "stop"
    if stops:
        with pytest.raises(type(FAILURES[failure]()) if policy == "none" else HandlerError):
            await worker.run()
    else:
        await run_until_idle(worker)
    assert [(event.stage.value, event.will_retry) for event in told] == events
    settled = [given for _, given in broker.subscriptions[0].settled]
    assert [given.delay for given in settled if isinstance(given, Nak)] == waits
    assert len(settled) == len(waits) + 1
    assert type(settled[-1]) is (outcome if isinstance(outcome, type) else type(outcome))
    assert len(broker.stored["dead.orders"]) == (policy == "letter")
    assert attempts == list(range(1, len(attempts) + 1))
    assert worker.stats.held == 0
