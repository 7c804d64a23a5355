"""Where the dead letters of a topic are."""

import pytest

from headrace.cli.dead import letter_topic
from headrace.core.errors import ConfigError


@pytest.mark.parametrize(
    ("topic", "exact", "found"),
    [
        ("orders", False, "dead.orders"),
        ("orders.new", False, "dead.orders.new"),
        ("dead.orders", False, "dead.orders"),
        ("bin", True, "bin"),
    ],
)
def test_letter_topic(topic, exact, found):
    assert letter_topic(topic, exact=exact) == found


@pytest.mark.parametrize("topic", ["a b", "orders.*", ""])
def test_what_is_no_topic_is_refused(topic):
    with pytest.raises(ConfigError):
        letter_topic(topic, exact=False)
