"""EmbeddedOptions: each wrong value names its field."""

from datetime import timedelta

import pytest

from headrace.core.errors import ConfigError
from headrace.embedded import Durability, EmbeddedOptions


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("durability", "fsync"), ("relaxed_window", 0), ("relaxed_window", 61), ("relaxed_window", None),
        ("read_only", 1), ("create", None), ("max_payload", 0), ("max_payload", 65 * 2**20), ("max_payload", True),
        ("max_pending_bytes", 1), ("timeout", 0), ("timeout", float("nan")), ("timeout", "1s"), ("max_pending", 0),
        ("stall_wait", -1), ("on_publish_error", 3), ("ack_flush", timedelta()), ("ack_flush", 11),
        ("reserve_bytes", 5), ("reserve_bytes", -1), ("check_rows", "no"), ("secure_delete", 0),
    ],
)  # fmt: skip
def test_wrong_values_name_the_field(field, value):
    with pytest.raises(ConfigError, match=field):
        EmbeddedOptions(**{field: value})


def test_lengths_of_time_become_timedeltas():
    options = EmbeddedOptions(timeout=5, ack_flush=0.1, stall_wait=0, durability=Durability.RELAXED, reserve_bytes=0)
    assert options.timeout == timedelta(seconds=5)
    assert options.ack_flush == timedelta(milliseconds=100)
    assert options.stall_wait == timedelta()
    assert EmbeddedOptions().stall_wait is None
