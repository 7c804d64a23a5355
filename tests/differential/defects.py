"""Known and not mended yet: each with the smallest program that shows it, and how random programs get past it.

An entry goes with its defect: `test_defects.py` fails as soon as one of these programs runs equal on both engines.
"""

from typing import NamedTuple

from tests.differential.cases.words import change, made, make, new
from tests.differential.side import do


class Defect(NamedTuple):
    room: str
    what: str
    program: list


TWO = {"max_bytes", "max_messages"}
PAIR = (("S.a", b"x" * 130, None), ("S.c", b"x" * 20, None))
DEFECTS = {
    "limits per commit": Defect(
        "embedded",
        "two limits on a batch: what one by one would have pushed out stays",
        [
            new(),
            do.publish("S.a.x", b""),
            do.publish("S.c", b"x" * 130),
            change(max_bytes=300, max_messages_per_subject=1),
            do.publish_async(*PAIR),
        ],
    ),
    "durable or not": Defect(
        "embedded",
        "an update from named to durable keeps inactive_threshold, one from durable to named sets none",
        [new(), made(name="c"), make("update")],
    ),
}


def gets_past(step, past):
    """Whether a random program leaves this step out because of them."""
    if step.name in ("publish_many", "publish_async"):
        return any(
            "max_messages_per_subject" in one.config and TWO & one.config.keys() for one in past.streams.values()
        )
    return False
