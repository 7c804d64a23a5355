"""Holding letters while they are looked at: their leases are kept, and what stays is handed back at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from headrace.core.broker import Subscription
from headrace.core.delivery import RELEASE, Delivery
from headrace.deadletters.letters import letter_from

__all__ = ["GROUP", "HeldLetter", "held"]

GROUP = "headrace-redrive"


@asynccontextmanager
async def held(subscription: Subscription) -> AsyncGenerator[dict[Delivery, None], None]:
    """A place for the deliveries that were started, in order: those that are in it at the end are handed back.

    What was never started goes back by itself when the subscription is left.
    """
    started: dict[Delivery, None] = {}
    keeping = None
    if subscription.lease is not None:
        keeping = asyncio.get_running_loop().create_task(_keep(subscription, subscription.lease / 3))
    try:
        yield started
    finally:
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        await subscription.stop()  # else what is handed back comes straight to us
        for delivery in started:
            delivery.settle(RELEASE)
        await subscription.flush()


class HeldLetter:
    """One letter under redrive (`Taken`); while it is among the `started` it is handed back at the end."""

    def __init__(self, delivery: Delivery, started: dict[Delivery, None]) -> None:
        self.letter = letter_from(delivery.message, delivery.position)
        self._delivery = delivery
        self._started = started

    def start(self) -> bool:
        """See `Taken.start`."""
        if not self._delivery.start():
            return False
        self._started[self._delivery] = None
        return True

    async def remove(self) -> None:
        """See `Taken.remove`."""
        self._started.pop(self._delivery)
        self._delivery.ack()


async def _keep(subscription: Subscription, every: float) -> None:
    """However slowly letters are moved, nobody else gets the ones that wait."""
    while True:
        await asyncio.sleep(every)
        subscription.keep()
