"""What we store is plain for everybody else: a few lines of socket code read it, and write what we read."""

import asyncio
import base64
import json
import re

import pytest

from headrace import connect, jetstream
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.streams.config import StreamConfig
from headrace.testing.nats import NatsServer

PATIENCE = 20


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


async def asked(server, subject, payload, headers=b""):
    """The answer to one request, by a client that is not ours."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.readline()
            writer.write(b'CONNECT {"verbose":false,"headers":true}\r\nSUB other.inbox 1\r\n')
            if headers:
                sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
                writer.write(b"HPUB %b other.inbox %b\r\n%b%b\r\n" % (subject.encode(), sizes, headers, payload))
            else:
                writer.write(b"PUB %b other.inbox %d\r\n%b\r\n" % (subject.encode(), len(payload), payload))
            while not (line := await reader.readline()).startswith(b"MSG"):
                assert line, "the server has hung up"
            return json.loads(await reader.readexactly(int(line.split()[-1])))
    finally:
        writer.close()
        await writer.wait_closed()


def test_stored_bytes_readable_by_another_client(server):
    async def story():
        headers = Headers([("A", "1"), ("a", "zwei ä"), ("Empty", "")])
        async with connect(server.url) as broker:
            message = Message(topic="plain.x", body=bytes(range(256)), key=b"k 1", headers=headers)
            await broker.publish(message)
            answer = await asked(server, "$JS.API.STREAM.MSG.GET.plain", b'{"seq":1}')
        stored = answer["message"]
        assert (stored["subject"], stored["seq"]) == ("plain.x", 1)
        assert base64.b64decode(stored["data"]) == bytes(range(256))
        lines = base64.b64decode(stored["hdrs"]).decode().split("\r\n")
        assert lines[0] == "NATS/1.0"
        assert lines[-2:] == ["", ""]
        found = [re.split(": ?", line, maxsplit=1) for line in lines[1:-2]]
        assert found[:3] == [
            ["Nats-Msg-Id", f"{message.id}@plain.x"],
            ["Headrace-Key", "k%201"],
            ["Headrace-Time", str(message.time_ns)],
        ]
        assert found[3:] == [["A", "1"], ["a", "zwei ä"], ["Empty", ""]]

    asyncio.run(story())


def test_what_another_client_stored_is_read(server):
    async def story():
        async with jetstream.connect(server.url) as streams:
            stream = await streams.create_stream(StreamConfig(name="OTHER", subjects=["other.x"], allow_direct=True))
            plain = await asked(server, "other.x", b"plain")
            block = b"NATS/1.0\r\nA:no blank\r\nb:  two  \r\nA: again\r\n\r\n"
            with_headers = await asked(server, "other.x", b"\x00\xff", block)
            assert (plain["seq"], with_headers["seq"]) == (1, 2)
            for message in (await stream.get_msg(2), (await stream.read())[1]):
                assert message.data == b"\x00\xff"
                assert message.headers.items() == (("A", "no blank"), ("b", "two"), ("A", "again"))
            assert (await stream.get_msg(1)).headers.items() == ()

    asyncio.run(story())
