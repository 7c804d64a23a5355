"""A partition that is paused because too much of it is unfinished goes on again, whatever becomes of that."""

import pytest

from headrace.kafka.codes import Code
from tests.unit.kafka.consuming_script import Record, Script, failed, member, pulled
from tests.unit.kafka.test_consuming_revoke import in_loop, until

SPAN = 4


def log_of(script, end):
    script.get_watermark_offsets = lambda place, timeout=None, cached=False: (-1001, -1001) if cached else (0, end)


@pytest.mark.parametrize("code", [Code.LOCAL_LOG_TRUNCATION, Code.OFFSET_OUT_OF_RANGE])
@in_loop
async def test_the_log_goes_back_while_it_is_paused(code):
    """Its first message waits for a retry; what comes after the cut has an epoch of its own, which holds nothing."""
    script = Script()
    async with member(script, max_span=SPAN, on_out_of_range="latest") as subscription:
        log_of(script, 2)
        script.give(0)
        await until(lambda: subscription.stays)
        script.arrive(*(Record(offset) for offset in range(SPAN)))
        first, *others = await pulled(subscription, SPAN)
        await until(lambda: script.paused)
        assert first.start()
        for delivery in others:
            delivery.ack()
        script.arrive(failed(code, offset=SPAN))
        await until(lambda: subscription._runs)
        assert await subscription.pull(1, 0.1) == []
        script.arrive(*(Record(offset, leader=4) for offset in range(8)))
        assert [one.offset for one in await pulled(subscription, 3)][:1] == [0]
        assert not first.start()
