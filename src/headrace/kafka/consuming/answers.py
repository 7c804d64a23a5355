"""Answers: what the driver's thread gives to whoever asked it for something."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.core.errors import ClosedError

__all__ = ["Ended", "give"]


class Ended:
    """In place of a consumer that is closed: whatever is asked of it fails."""

    def __getattr__(self, name: str) -> Any:
        raise ClosedError("the subscription has ended")


def give(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Have it resolve so; nothing where whoever asked has gone."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
