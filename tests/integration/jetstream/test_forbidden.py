"""A subject that the server forbids: who sent on it hears so at once, and nobody else does."""

import asyncio

import pytest

from headrace import jetstream
from headrace.core.errors import Fault, PublishError
from headrace.jetstream import JetStreamOptions
from headrace.nats import Connection, ConnectionOptions, PermissionsError
from headrace.streams.config import StreamConfig, StreamMessage
from headrace.testing.nats import NatsServer
from tests.integration.jetstream.consuming import run

CONFIG = """authorization { users: [
    {user: all, password: x}
    {user: some, password: x, permissions: {publish: {deny: ["S.no", "$JS.API.STREAM.DELETE.>"]}}}
] }"""
NEVER = 3600.0  # what ends by a time-out does not end within a test


@pytest.fixture(scope="module")
def server():
    with NatsServer(config=CONFIG) as running:
        yield running


def told(test):
    """Run `test(js, errors)` with a stream S, as somebody who may not publish to S.no; twice: nothing is left over."""

    def wrapped(server):
        async def story():
            errors = []
            url = server.url.replace("://", "://{}:x@")
            async with jetstream.connect(url.format("all")) as js:
                await js.create_or_update_stream(StreamConfig(name="S", subjects=["S.>"], allow_atomic=True))
            options = JetStreamOptions(timeout=NEVER, connection=ConnectionOptions(on_error=errors.append))
            async with jetstream.connect(url.format("some"), options=options) as js:
                for _ in range(2):
                    await test(js, errors)
                assert not js.connection.replies.waiting
                assert js.publish_async_pending == 0

        run(story())

    return wrapped


def check(error):
    assert type(error) is PublishError
    assert error.fault is Fault.REJECTED
    assert isinstance(error.__cause__, PermissionsError)


@told
async def test_a_publish(js, errors):
    with pytest.raises(PublishError, match="Permissions Violation") as caught:
        await js.publish("S.no", b"x", msg_id="1")
    check(caught.value)
    assert errors, "on_error hears of it as before"
    await js.publish("S.yes", b"x")


@told
async def test_async_publishes(js, errors):
    futures = [await js.publish_async(f"S.{word}", b"x") for word in ["yes", "no", "no", "yes", "no"]]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(result, PublishError) for result in results] == [False, True, True, False, True]
    for result in results:
        if isinstance(result, PublishError):
            check(result)


@told
async def test_many_publishes(js, errors):
    results = await js.publish_many([StreamMessage(f"S.{word}", b"x") for word in ["no", "yes", "no", "nobody"]])
    check(results[0])
    check(results[2])
    assert not [result for result in (results[1], results[3]) if isinstance(result, PublishError)]


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_a_batch(server, place):
    @told
    async def test(js, errors):
        messages = [StreamMessage("S.yes", b"x") for _ in range(3)]
        messages[place] = StreamMessage("S.no", b"x")
        with pytest.raises(PublishError) as caught:
            await js.publish_atomic(messages)
        check(caught.value)

    test(server)


@told
async def test_a_request(js, errors):
    with pytest.raises(PermissionsError) as caught:
        await js.connection.request("S.no", b"x", timeout=NEVER)
    assert isinstance(caught.value.__cause__, PermissionsError)
    assert (await js.connection.request("S.yes", b"x", timeout=NEVER)).data


@told
async def test_a_request_of_the_api(js, errors):
    with pytest.raises(PermissionsError):
        await js.delete_stream("S")
    assert (await js.stream("S")).name == "S"


def test_a_bare_publish_only_tells_on_error(server):
    async def story():
        errors = []
        url = server.url.replace("://", "://some:x@")
        async with Connection(url, ConnectionOptions(on_error=errors.append)) as connection:
            connection.publish("S.no", b"x")
            await connection.flush()
        assert [error.subject for error in errors] == [b"S.no"]

    run(story())
