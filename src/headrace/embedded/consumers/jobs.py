"""Jobs of one consumer on the consumers thread: writing outcomes, serving pulls. `Place` submits them, and is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import apsw

from headrace.embedded.consumers.acks import Settler
from headrace.embedded.consumers.claims import Claimer
from headrace.embedded.consumers.leases import Payload
from headrace.embedded.consumers.request import Request
from headrace.embedded.consumers.retention import releases, unneeded
from headrace.embedded.consumers.rows import consumer_by_id, save, settings_of
from headrace.embedded.consumers.shared import Shared
from headrace.embedded.store.job import Job

__all__ = ["ClaimJob", "FlushJob"]


class FlushJob(Job):
    """Outcomes into consumers.db; then what retention may delete goes."""

    weight = 0
    isolated = True
    quiet = True

    def __init__(
        self,
        shared: Shared,
        consumer_id: int,
        payloads: list[Payload],
        waiters: list[asyncio.Future[None]],
        ended: Callable[[FlushJob, BaseException | None], None],
    ) -> None:
        self.payloads = payloads
        self.waiters = waiters
        self.stream_id = 0
        self.gone: list[int] = []
        self._shared = shared
        self._id = consumer_id
        self._ended = ended

    def run(self, connection: apsw.Connection) -> None:
        """Write them."""
        store = self._shared.store
        now = store.boot_ns()
        row = consumer_by_id(connection, self._id)
        if row is None:
            return  # deleted meanwhile: nothing is left to settle
        self.stream_id = row.stream
        collect = releases(connection, row.stream)
        settler = Settler(connection, row, settings_of(row.config), store.member, collect=collect)
        for payload in self.payloads:
            settler.apply(payload)
        row.active = now
        save(connection, row)
        self.gone = unneeded(connection, row.stream, settler.settled) if collect else []

    def done(self) -> None:
        """They are committed."""
        self._ended(self, None)

    def failed(self, error: BaseException) -> None:
        """Nothing was written."""
        self._ended(self, error)


class ClaimJob(Job):
    """All parked pulls of one consumer, served in one transaction."""

    weight = 0
    isolated = True
    quiet = True

    def __init__(
        self,
        shared: Shared,
        consumer_id: int,
        stream: str,
        requests: list[Request],
        ended: Callable[[ClaimJob, BaseException | None], None],
    ) -> None:
        self.requests = requests
        self.exhausted: list[tuple[int, int]] = []
        self.next_due: int | None = None
        self.now = 0
        self.stream_id = 0
        self.gone: list[int] = []
        self._shared = shared
        self._id = consumer_id
        self._stream = stream
        self._ended = ended

    def run(self, connection: apsw.Connection) -> None:
        """Serve them."""
        store = self._shared.store
        self.now = store.boot_ns()
        self._shared.hand_over(connection)
        claimer = Claimer(
            connection, self._id, self._stream, member=store.member, now=self.now, wall=store.now_ns(),
            check=store.options.check_rows,
        )  # fmt: skip
        before = claimer.row.delivered_s
        claimer.serve(self.requests)
        claimer.finish()
        self.exhausted, self.next_due = claimer.exhausted, claimer.next_due()
        row = claimer.row
        self.stream_id = row.stream
        if claimer.settings.ack_none and row.delivered_s != before and releases(connection, row.stream):
            found = [msg.token[1] for request in self.requests for msg in request.found]
            self.gone = unneeded(connection, row.stream, found)

    def done(self) -> None:
        """What was taken is on disk."""
        self._ended(self, None)

    def failed(self, error: BaseException) -> None:
        """Nothing was taken."""
        self._ended(self, error)
