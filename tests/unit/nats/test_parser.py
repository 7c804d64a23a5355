"""Parser: any split gives the same calls, limits hold, and nothing that a server sends does more than end the link."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.nats.errors import ProtocolError
from headrace.nats.parser import MAX_CONTROL_LINE, Parser

MAX_FRAME = 256 * 1024
RECORDED = (
    b'INFO {"server_id":"N","version":"2.15.1","headers":true,"max_payload":1048576} \r\n'
    b"PONG\r\n"
    b"MSG orders.new 1 5\r\nhello\r\n"
    b"MSG orders.new 1 _INBOX.abc.1 0\r\n\r\n"
    b"+OK\r\n"
    b"HMSG orders.new 2 29 34\r\nNATS/1.0\r\nA: 1\r\na:2\r\nA: 3\r\n\r\nhello\r\n"
    b"HMSG r.1 3 36 36\r\nNATS/1.0 503\r\nNats-Subject: none\r\n\r\n\r\n"
    b"PING\r\n"
    b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"
    b"MSG bin.\xc3\xa9 1 7\r\n\r\nMSG \r\r\n"
    b"msg low 1 2\r\nok\r\n"
    b"hmsg\tlow 1\t_R 12 14\r\nNATS/1.0\r\n\r\nok\r\n"
    b"Ping\r\n"
    b"MSG nobody 99 2\r\n\r\n\r\n"
    b"MSG big 1 2000\r\n" + b"x" * 2000 + b"\r\n"
    b"PONG\r\n"
)


class Heard:
    """A sink, and callables for three sids, all of which only write down what they are told."""

    def __init__(self):
        self.calls = []
        self.handlers = {sid: self.message(sid) for sid in (b"1", b"2", b"3")}

    def message(self, sid):
        return lambda *parts: self.calls.append((sid, *parts))

    def take_info(self, data):
        self.calls.append(("INFO", data))

    def take_ping(self):
        self.calls.append("PING")

    def take_pong(self):
        self.calls.append("PONG")

    def take_ok(self):
        pass

    def take_error(self, text):
        self.calls.append(("-ERR", text))

    def callback_failed(self, error):
        self.calls.append(error)


def parse(*pieces, max_frame=MAX_FRAME):
    heard = Heard()
    parser = Parser(heard.handlers, heard, max_frame=max_frame)
    for piece in pieces:
        parser.feed(piece)
    return heard.calls, parser


def test_a_session_is_heard_as_it_was_recorded():
    calls, parser = parse(RECORDED)
    assert calls == [
        ("INFO", b'{"server_id":"N","version":"2.15.1","headers":true,"max_payload":1048576}'),
        "PONG",
        (b"1", b"orders.new", b"", b"", b"hello"),
        (b"1", b"orders.new", b"_INBOX.abc.1", b"", b""),
        (b"2", b"orders.new", b"", b"NATS/1.0\r\nA: 1\r\na:2\r\nA: 3\r\n\r\n", b"hello"),
        (b"3", b"r.1", b"", b"NATS/1.0 503\r\nNats-Subject: none\r\n\r\n", b""),
        "PING",
        ("-ERR", 'Permissions Violation for Publish to "x"'),
        (b"1", "bin.é".encode(), b"", b"", b"\r\nMSG \r"),
        (b"1", b"low", b"", b"", b"ok"),
        (b"1", b"low", b"_R", b"NATS/1.0\r\n\r\n", b"ok"),
        "PING",
        (b"1", b"big", b"", b"", b"x" * 2000),
        "PONG",
    ]
    assert parser.messages == 9
    assert not parser.unfinished


def test_parser_split_anywhere():
    whole, _ = parse(RECORDED)
    for at in range(len(RECORDED) + 1):
        calls, parser = parse(RECORDED[:at], RECORDED[at:])
        assert calls == whole, at
        assert not parser.unfinished


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
def test_parser_in_equal_pieces(step):
    assert parse(*pieces(RECORDED, step))[0] == parse(RECORDED)[0]


@pytest.mark.parametrize("size", [1023, 1024, 16_000, 16_384, 70_000, MAX_FRAME])
@pytest.mark.parametrize("step", [1000, 4096, 65_536])
def test_large_frames_in_pieces(size, step):
    body = bytes(range(256)) * (size // 256) + b"." * (size % 256)
    stream = (
        b"PING\r\n"
        + b"MSG a 1 %d\r\n%b\r\n" % (size, body)
        + b"HMSG b 2 12 %d\r\nNATS/1.0\r\n\r\n%b\r\nPONG\r\n"
        % (
            size,
            body[12:],
        )
    )
    calls, parser = parse(*pieces(stream, step))
    assert calls == [
        "PING",
        (b"1", b"a", b"", b"", body),
        (b"2", b"b", b"", b"NATS/1.0\r\n\r\n", body[12:]),
        "PONG",
    ]
    assert not parser.unfinished


def test_a_subject_may_hold_what_only_python_takes_for_a_blank():
    calls, _ = parse(b"MSG a\x0bb\x0cc\x1cd 1 2\r\nok\r\n")
    assert calls == [(b"1", b"a\x0bb\x0cc\x1cd", b"", b"", b"ok")]


def test_what_a_callback_raises_goes_to_the_sink_and_the_next_message_is_heard():
    heard = Heard()
    heard.handlers[b"1"] = lambda *_: {}["missing"]
    Parser(heard.handlers, heard, max_frame=MAX_FRAME).feed(b"MSG a 1 0\r\n\r\nMSG a 2 0\r\n\r\n")
    assert isinstance(heard.calls[0], KeyError)
    assert heard.calls[1:] == [(b"2", b"a", b"", b"", b"")]


def test_a_callback_may_end_a_subscription_for_the_rest_of_the_piece():
    heard = Heard()
    heard.handlers[b"1"] = lambda *_: heard.handlers.pop(b"2")
    parser = Parser(heard.handlers, heard, max_frame=MAX_FRAME)
    parser.feed(b"MSG a 1 0\r\n\r\nMSG a 2 0\r\n\r\nMSG a 3 0\r\n\r\n")
    assert heard.calls == [(b"3", b"a", b"", b"", b"")]


BAD = {
    "control line too long": b"MSG " + b"a" * MAX_CONTROL_LINE + b" 1 0\r\n\r\n",
    "control line without end": b"M" * (MAX_CONTROL_LINE + 1),
    "info without end": b"INFO " + b"{" * 65_536,
    "size negative": b"MSG a 1 -1\r\n\r\n",
    "size no number": b"MSG a 1 x\r\n\r\n",
    "size with sign": b"MSG a 1 +1\r\nx\r\n",
    "size with underscore": b"MSG a 1 1_0\r\n0123456789\r\n",
    "size missing": b"MSG a 1 \r\n\r\n",
    "size over the limit": b"MSG a 1 %d\r\n" % (MAX_FRAME + 1),
    "size absurd": b"MSG a 1 " + b"9" * 400 + b"\r\n",
    "size of other digits": "MSG a 1 ٣\r\nabc\r\n".encode(),
    "too few words": b"MSG a 0\r\n\r\n",
    "too many words": b"MSG a 1 r s 0\r\n\r\n",
    "only the verb": b"MSG\r\n",
    "hmsg with one number": b"HMSG a 0\r\n\r\n",
    "hmsg that is a msg": b"HMSG a 1 0\r\n\r\n",
    "only the verb of hmsg": b"HMSG\r\n",
    "header longer than all": b"HMSG a 1 13 12\r\nNATS/1.0\r\n\r\n\r\n",
    "header negative": b"HMSG a 1 -1 12\r\nNATS/1.0\r\n\r\n\r\n",
    "payload longer than said": b"MSG a 1 2\r\nabc\r\n",
    "payload shorter than said": b"MSG a 1 5\r\nabc\r\nPING\r\n",
    "empty line": b"\r\n",
    "blank line": b"  \r\n",
    "unknown verb": b"HELLO world\r\n",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls record": b"\x15\x03\x01\x00\x02\x02\x46\r\n",
}


@pytest.mark.parametrize("stream", BAD.values(), ids=BAD)
def test_parser_limits(stream):
    with pytest.raises(ProtocolError):
        parse(stream)
    with pytest.raises(ProtocolError):
        parse(*pieces(stream, 1 if len(stream) < 1000 else 100))


def test_info_of_a_large_cluster_may_be_longer_than_a_control_line():
    calls, _ = parse(*pieces(b"INFO " + b"x" * 60_000 + b"\r\n", 999))
    assert calls == [("INFO", b"x" * 60_000)]


def test_memory_of_an_unfinished_frame_is_bounded():
    limit = 8 * 1024 * 1024
    heard = Heard()
    parser = Parser(heard.handlers, heard, max_frame=limit)
    piece = b"x" * 4096
    tracemalloc.start()
    try:
        parser.feed(b"MSG a 1 %d\r\n" % limit)
        for _ in range(limit // len(piece)):
            parser.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parser.unfinished
    assert peak < limit + 1024 * 1024


def pieces(stream, step):
    return [stream[at : at + step] for at in range(0, len(stream), step)]


SUBJECT = st.binary(min_size=1, max_size=20).filter(lambda text: not set(text) & set(b" \t\r\n"))
FRAMES = st.one_of(
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'x'\r\n", b"INFO {}\r\n"]),
    st.builds(
        lambda subject, sid, reply, body: b"MSG %b %b %b%d\r\n%b\r\n" % (subject, sid, reply, len(body), body),
        SUBJECT,
        st.sampled_from([b"1", b"2", b"9"]),
        st.one_of(st.just(b""), SUBJECT.map(lambda subject: subject + b" ")),
        st.binary(max_size=40),
    ),
    st.builds(
        lambda subject, head, body: b"HMSG %b 1 %d %d\r\n%b%b\r\n" % (subject, len(head), len(head + body), head, body),
        SUBJECT,
        st.binary(max_size=30),
        st.binary(max_size=30),
    ),
)


def check_splits(stream, cuts):
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    parts = [stream[one:other] for one, other in pairwise(edges)]
    assert outcome(stream) == outcome(*parts)


def outcome(*parts):
    """What was heard, and how it ended; where it ended may differ inside of a frame that is refused."""
    heard = Heard()
    parser = Parser(heard.handlers, heard, max_frame=1000)
    try:
        for part in parts:
            parser.feed(part)
    except ProtocolError:
        return heard.calls, "refused"
    return heard.calls, parser.unfinished


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 10_000), max_size=6))
def test_good_frames_in_any_pieces(frames, cuts):
    stream = b"".join(frames)
    check_splits(stream, cuts)
    assert outcome(stream)[1] is False


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(FRAMES, st.binary(max_size=12)), max_size=6), st.lists(st.integers(0, 10_000), max_size=6))
def test_garbage_in_any_pieces(frames, cuts):
    check_splits(b"".join(frames), cuts)


@pytest.mark.chaos
def test_garbage_in_any_pieces_for_long(rounds):
    settings(max_examples=50 * rounds, deadline=None)(
        given(
            st.lists(st.one_of(FRAMES, st.binary(max_size=30)), max_size=12),
            st.lists(st.integers(0, 10_000), max_size=12),
        )(lambda frames, cuts: check_splits(b"".join(frames), cuts))
    )()
