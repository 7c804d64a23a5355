"""DriverLog: when an outage is over, and the next one is told. Lines and events are as librdkafka gives them."""

import logging

import pytest

from headrace.kafka.codes import Code
from headrace.kafka.errors import error_for
from headrace.kafka.log import DriverLog


class Hand:
    """A clock that is set by hand."""

    seconds = 100.0

    def monotonic(self):
        return self.seconds


class Driver:
    """Says what the driver says, at the time of the clock."""

    def __init__(self, caplog):
        self.clock = Hand()
        self.log = DriverLog(self.clock)
        self._caplog = caplog

    def refused(self):
        line = "h:1/1: Connect to ipv4#h:1 failed: Connection refused (after 0ms in state CONNECT)"
        self.log.log(logging.ERROR, "%s [%s] %s", "FAIL", "headrace#consumer-1", line)
        self.log.failed(error_for(Code.LOCAL_TRANSPORT, "_TRANSPORT", line))
        self.log.failed(error_for(Code.LOCAL_ALL_BROKERS_DOWN, "_ALL_BROKERS_DOWN", "2/2 brokers are down"))

    def lost(self, good, level=logging.INFO):
        line = f"h:1/1: Disconnected: connection closed by peer (after {good * 1000:.0f}ms in state UP)"
        self.log.log(level, "%s [%s] %s", "FAIL", "headrace#consumer-1", line)

    @property
    def warnings(self):
        return sum(record.levelno >= logging.WARNING for record in self._caplog.records)


@pytest.fixture
def driver(caplog):
    with caplog.at_level(logging.DEBUG, "headrace.kafka"):
        yield Driver(caplog)


def outage(driver, good):
    """Of two brokers at once, both links `good` seconds old; it lasts 10 s."""
    driver.lost(good)
    driver.refused()
    driver.lost(good)
    for _ in range(10):
        driver.refused()
        driver.clock.seconds += 1


def test_each_outage_is_told_though_nobody_says_recovered(driver):
    outage(driver, good=50)
    assert driver.warnings == 1
    for number in (2, 3):
        driver.clock.seconds += 6
        outage(driver, good=5)
        assert driver.warnings == number


def test_a_link_that_is_lost_at_error_level_is_itself_the_news(driver):
    outage(driver, good=50)
    driver.clock.seconds += 6
    driver.lost(5, logging.ERROR)
    assert driver.warnings == 2
    driver.lost(5, logging.ERROR)
    assert driver.warnings == 2


def test_brokers_that_go_one_after_another_are_one_outage(driver):
    """Each link was good since before the first one went."""
    for second in range(20):
        driver.lost(50 + second)
        driver.refused()
        driver.clock.seconds += 1
    assert driver.warnings == 1


def test_a_link_that_breaks_at_once_ends_no_outage(driver):
    for _ in range(50):
        driver.refused()
        driver.clock.seconds += 2
        driver.lost(0.5)
    assert driver.warnings == 1


def test_a_link_that_is_lost_is_no_outage_by_itself(driver):
    """Brokers close links that idle."""
    driver.lost(600)
    driver.clock.seconds += 600
    driver.lost(600)
    assert driver.warnings == 0
