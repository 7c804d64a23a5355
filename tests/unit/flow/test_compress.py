"""Compress and Decompress against bodies that mean harm: every one a CodecError, in bounded memory (3.9, section 5)."""

import asyncio
import gzip
import struct
import tracemalloc
import zlib
from contextlib import suppress

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import CodecError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow import DeadLetter, Topic, Worker
from headrace.flow.middleware import Compress, Decompress
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker

MIB = 1024 * 1024
CODINGS = ("gzip", "lz4", "zstd")
ENCODE = {"gzip": gzip.compress, "lz4": lz4.frame.compress, "zstd": zstandard.ZstdCompressor().compress}


def encoded(body, *codings):
    return Message(topic="t", body=body, headers=Headers({"Content-Encoding": ", ".join(codings)}))


def gigabyte(coding):
    """A GiB of zeros, compressed, without a size that says so."""
    if coding == "gzip":  # one piece of 16 MiB ends on a byte and at a fresh window: it may follow itself
        machine = zlib.compressobj(9, zlib.DEFLATED, -15)
        piece = machine.compress(bytes(16 * MIB)) + machine.flush(zlib.Z_FULL_FLUSH)
        return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + piece * 64
    if coding == "lz4":
        machine = lz4.frame.LZ4FrameCompressor()
        return b"".join([machine.begin(), *(machine.compress(bytes(16 * MIB)) for _ in range(64)), machine.flush()])
    machine = zstandard.ZstdCompressor().compressobj()
    return b"".join([*(machine.compress(bytes(16 * MIB)) for _ in range(64)), machine.flush()])


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_of_a_gigabyte_takes_no_more_than_its_bound(coding):
    message = encoded(gigabyte(coding), coding)
    assert len(message.body) < 6 * MIB
    bound = 8 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=f"over {bound} bytes"):
            Decompress(max_size=bound, max_ratio=1e6).change(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bound + 16 * MIB


@pytest.mark.parametrize("coding", CODINGS)
def test_bombs_in_layers(coding):
    body = bytes(32 * MIB)
    for _ in range(4):
        body = ENCODE[coding](body)
    with pytest.raises(CodecError, match="over"):
        Decompress().change(encoded(body, *[coding] * 4))
    with pytest.raises(CodecError, match="more than 4"):
        Decompress().change(encoded(ENCODE[coding](body), *[coding] * 5))


@pytest.mark.parametrize("coding", CODINGS)
def test_truncated_anywhere(coding):
    body = ENCODE[coding](b"0123456789" * 30)
    for size in range(len(body)):
        with pytest.raises(CodecError):
            Decompress().change(encoded(body[:size], coding))
    assert Decompress().change(encoded(body, coding)).body == b"0123456789" * 30


@pytest.mark.parametrize("coding", CODINGS)
def test_flipped_anywhere_is_the_body_or_an_error(coding):
    body = ENCODE[coding](bytes(range(256)) * 4) if coding != "lz4" else lz4.frame.compress(
        bytes(range(256)) * 4, content_checksum=True
    )  # fmt: skip
    for place in range(len(body)):
        with suppress(CodecError):
            Decompress(max_size=MIB).change(
                encoded(body[:place] + bytes([body[place] ^ 0x41]) + body[place + 1 :], coding)
            )


def test_declared_sizes_are_checked_first_and_not_believed():
    compressor = zstandard.ZstdCompressor(write_content_size=True)
    frame = bytearray(compressor.compress(bytes(70_000)))
    assert zstandard.get_frame_parameters(bytes(frame)).content_size == 70_000
    place = bytes(frame).index(struct.pack("<I", 70_000))
    for lie in (2**31, 60_000):
        frame[place : place + 4] = struct.pack("<I", lie)
        with pytest.raises(CodecError):
            Decompress(max_size=MIB).change(encoded(bytes(frame), "zstd"))
    huge = lz4.frame.compress(bytes(70_000), store_size=True)
    with pytest.raises(CodecError, match="over 60000 bytes"):
        Decompress(max_size=60_000).change(encoded(huge, "lz4"))
    assert lz4.frame.get_frame_info(huge)["content_size"] == 70_000


def test_a_window_over_8_mib_is_refused():
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    machine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = machine.compress(b"x" * 1_000) + machine.flush()
    with pytest.raises(CodecError, match="not zstd"):
        Decompress().change(encoded(body, "zstd"))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=6), st.sampled_from(CODINGS))
def test_members_follow_each_other(sizes, coding):
    parts = [b"%d" % size * size for size in sizes]
    body = b"".join(ENCODE[coding](part) for part in parts)
    assert Decompress(max_ratio=10_000).change(encoded(body, coding)).body == b"".join(parts)
    with pytest.raises(CodecError):
        Decompress().change(encoded(body + b"\x00junk", coding))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(CODINGS), st.booleans())
def test_any_bytes_are_a_body_or_a_codec_error(body, coding, headed):
    with suppress(CodecError):
        Decompress(max_size=MIB).change(encoded(ENCODE[coding](b"")[:4] + body if headed else body, coding))


@pytest.mark.parametrize("coding", CODINGS)
def test_equal_bodies_give_equal_bytes(coding):
    message = Message(topic="t", body=b"0123456789" * 100)
    assert Compress(coding).change(message).body == Compress(coding).change(message).body


@virtual_time
async def test_a_bomb_goes_to_the_end_without_a_retry_and_the_worker_goes_on():
    broker, handler = ScriptedBroker(), RecordingHandler()
    bomb = Compress("gzip").change(Message(topic="orders", body=bytes(32 * MIB)))
    await broker.publish(bomb)
    await Topic(broker, "orders").send(b"good")
    worker = Worker(broker, "orders", handler, group="g", middleware=[Decompress()], on_exhausted=DeadLetter())
    await run_until_idle(worker)
    assert [letter.body for letter in broker.stored["dead.orders"]] == [bomb.body]
    assert asyncio.get_running_loop().time() < 1, "what can never succeed waits for no retry"
    assert (worker.stats.retried, worker.stats.acked) == (0, 2)
