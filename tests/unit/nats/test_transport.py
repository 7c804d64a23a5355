"""Link: pings are answered at once and without end of memory, and its end is told once."""

import pytest

from headrace.core.errors import ConnectionLostError
from headrace.nats.errors import AuthenticationError, PermissionsError, ProtocolError, ServerError
from headrace.nats.info import ConnectionStats
from headrace.nats.servers import Server
from headrace.nats.transport import Link
from tests.unit.nats.test_outgoing import run


class Wire:
    def __init__(self):
        self.data = b""
        self.ends = []

    def write(self, data):
        self.data += data

    def abort(self):
        self.ends.append("abort")

    def close(self):
        self.ends.append("close")


class Owner:
    def __init__(self):
        self.told = []

    def heard(self, link, info):
        self.told.append(("heard", info.version))

    def pong(self):
        self.told.append("pong")

    def pause(self):
        self.told.append("pause")

    def resume(self):
        self.told.append("resume")

    def report(self, error):
        self.told.append(("report", error))

    def lost(self, link, error):
        self.told.append(("lost", error))


def link_to(owner=None):
    link, wire = Link(Server("h", 1), ConnectionStats(), max_frame=10_000), Wire()
    link.connection_made(wire)
    link.owner = owner
    return link, wire


@run
async def test_every_ping_is_answered_and_a_peer_that_does_not_read_gets_one_for_all():
    owner = Owner()
    link, wire = link_to(owner)
    link.data_received(b"PING\r\nPING\r\nPI")
    link.data_received(b"NG\r\n")
    assert wire.data == b"PONG\r\n" * 3
    link.pause_writing()
    for _ in range(100):
        link.data_received(b"PING\r\nPING\r\n")
    assert wire.data == b"PONG\r\n" * 4
    link.resume_writing()
    assert wire.data.startswith(b"PONG\r\n" * 5)
    assert len(wire.data) <= 300 * 6
    answered = len(wire.data)
    link.pause_writing()
    link.data_received(b"PING\r\n")
    assert len(wire.data) == answered + 6
    assert owner.told == ["pause", "resume", "pause"]


@run
async def test_the_end_is_told_once_and_nothing_is_handed_out_after_it():
    owner = Owner()
    link, wire = link_to(owner)
    got = []
    link.parser.handlers = {b"1": lambda *parts: got.append(parts)}
    link.data_received(b"MSG a 1 0\r\n\r\n-ERR 'Stale Connection'\r\nMSG a 1 0\r\n\r\n-ERR 'again'\r\n")
    link.connection_lost(None)
    assert len(got) == 1
    assert [word for word, _ in owner.told] == ["lost"]
    assert type(link.error) is ServerError
    assert wire.ends[0] == "abort"
    link.write(b"late")
    assert wire.data == b""
    with pytest.raises(ServerError):
        link.check_alive()
    assert link.ended.done()


@run
async def test_a_link_that_still_writes_its_last_bytes_disturbs_the_next_one_no_more():
    owner = Owner()
    link, wire = link_to(owner)
    link.pause_writing()
    link.close(ConnectionLostError("enough"))
    link.resume_writing()
    link.data_received(b"PONG\r\nINFO {}\r\nPING\r\n")
    assert owner.told[0] == "pause"
    assert [told[0] for told in owner.told[1:]] == ["lost"]
    assert wire.ends == ["close"]


@run
async def test_errors_after_which_a_server_goes_on():
    owner = Owner()
    link, _ = link_to(owner)
    for text in ('Permissions Violation for Publish to "x"', "Invalid Subject", "maximum subscriptions exceeded"):
        link.data_received(b"-ERR '%b'\r\n" % text.encode())
    assert [word for word, _ in owner.told] == ["report"] * 3
    assert isinstance(owner.told[0][1], PermissionsError)
    assert link.error is None


@run
async def test_before_the_handshake_is_through_every_error_is_the_end():
    for text, kind in (("Authorization Violation", AuthenticationError), ("Permissions Violation", PermissionsError)):
        link, _ = link_to()
        link.data_received(b"INFO {}\r\n-ERR '%b'\r\n" % text.encode())
        assert link.first_info.result() is None
        with pytest.raises(kind):
            await link.first_pong


@run
async def test_what_is_no_info_is_the_end():
    for data in (b"INFO nonsense\r\n", b"INFO []\r\n", b'INFO {"max_payload":-1}\r\n', b'INFO {"port":"x"}\r\n',
                 b'INFO {"connect_urls":' + b"[" * 60_000 + b"\r\n", b"SSH-2.0-OpenSSH\r\n"):  # fmt: skip
        link, wire = link_to()
        link.data_received(data)
        with pytest.raises(ProtocolError):
            await link.first_info
        assert wire.ends == ["abort"]


@run
async def test_a_socket_that_breaks_says_why():
    owner = Owner()
    link, _ = link_to(owner)
    cause = ConnectionResetError(104, "reset")
    link.connection_lost(cause)
    ((word, error),) = owner.told
    assert word == "lost"
    assert type(error) is ConnectionLostError
    assert error.__cause__ is cause
    quiet, _ = link_to()
    quiet.connection_lost(None)
    assert "hung up" in str(quiet.error)
