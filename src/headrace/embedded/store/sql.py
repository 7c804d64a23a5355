"""How rows are asked for."""

from __future__ import annotations

from typing import Any

import apsw

__all__ = ["LATEST_NS", "every", "one"]

LATEST_NS = 2**63 - 1
"""The last time that a column holds: in April 2262."""


def one(connection: apsw.Connection, statement: str, bound: Any = ()) -> Any:
    """The first row, or ``None``."""
    return connection.execute(statement, bound).fetchone()


def every(connection: apsw.Connection, statement: str, bound: Any = ()) -> list[Any]:
    """All rows."""
    cursor: Any = connection.execute(statement, bound)
    return list(cursor)
