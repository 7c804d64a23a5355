"""A server that has no room left: typed errors, a connection that stays usable, and all that was acknowledged."""

import resource

import pytest

from headrace.core.errors import Fault, PublishError, PublishTimeoutError
from headrace.streams import DiscardPolicy, StreamConfig, StreamFullError
from headrace.testing.nats import NatsServer
from tests.faults.nats.scene import SUBJECT, eventually, made, on_a_loop, opened, reading, stored

FULL = "jetstream { max_file_store: 1MB }\n"


async def filled(js):
    """Publish until it is refused: what was acknowledged, and the error."""
    acknowledged = []
    for number in range(200):
        body = b"%03d" % number + b"x" * 20_000
        try:
            await js.publish(SUBJECT, body, msg_id=f"{number}")
        except PublishError as error:
            return acknowledged, error
        acknowledged.append(body)
    raise AssertionError("it is never full")


@on_a_loop
async def test_disk_full_server():
    with NatsServer(config=FULL) as server:
        async with opened(server) as js:
            stream = await made(js)
            async with reading(js, "messages") as reader:
                acknowledged, error = await filled(js)
                assert error.fault is not Fault.REJECTED, "it may be published again when there is room"
                assert len(acknowledged) > 20
                await reader.until(len(acknowledged))
                assert await stored(stream) == acknowledged
                outcomes = [await js.publish_async(SUBJECT, b"x" * 20_000, msg_id=f"more{n}") for n in range(50)]
                for future in outcomes:
                    with pytest.raises(PublishError):
                        await future
                assert js.publish_async_pending == 0
                assert await stream.purge() == len(acknowledged)
                await js.publish(SUBJECT, b"room again")
                await reader.until(lambda bodies: b"room again" in bodies)
            assert js.connection.stats.reconnects == 0


@on_a_loop
async def test_a_full_server_keeps_what_it_acknowledged_over_a_kill():
    with NatsServer(config=FULL) as server:
        async with opened(server) as js:
            stream = await made(js)
            acknowledged, _ = await filled(js)
            server.kill()
            server.start()
            await eventually(lambda: js.connection.stats.reconnects)
            assert await stored(stream) == acknowledged


@on_a_loop
async def test_a_full_stream_is_told_from_a_full_server():
    with NatsServer(config=FULL) as server:
        async with opened(server) as js:
            await js.create_stream(
                StreamConfig(name="S", subjects=["s.>"], max_bytes=100_000, discard=DiscardPolicy.NEW)
            )
            _, error = await filled(js)
            assert isinstance(error, StreamFullError)
            assert error.fault is Fault.UNAVAILABLE


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="needs prlimit of Linux to make another program's writes fail"
)
@on_a_loop
async def test_a_server_whose_writes_fail():
    """It logs that, and answers no more: the outcome is unknown, the rest of the connection works, nothing is lost."""
    with NatsServer() as server:
        async with opened(server, timeout=1) as js:
            stream = await made(js)
            await js.publish(SUBJECT, b"small")
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            acknowledged, error = await filled(js)
            assert isinstance(error, PublishTimeoutError)
            assert error.fault is Fault.UNKNOWN
            assert js.publish_async_pending == 0
            assert b"file too large" in server.log.read_bytes()
            assert (await js.consumer("S", "c")).name == "c"
            server.kill()
            server.start()
            await eventually(lambda: js.connection.stats.reconnects)
            await js.publish(SUBJECT, b"room again")
            assert await stored(stream) == [b"small", *acknowledged, b"room again"]
