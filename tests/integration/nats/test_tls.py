"""TLS: verified unless told otherwise, and no credentials in plain text where it was asked for."""

import ssl

import pytest

from headrace.core.errors import ConfigError
from headrace.nats import Connection, NoServersError, ProtocolError
from headrace.testing.nats import Proxy, RecordingServer, free_port
from tests.integration.nats.certificates import Authority
from tests.integration.nats.scene import connection_to, plain_server, run, until

pytestmark = pytest.mark.servers
SECRET = "s3cret-word"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(authority):
    """A server with a certificate for 127.0.0.1, and one user."""
    with plain_server(config=tls(*authority.issue("server", "127.0.0.1")) + user()) as server:
        yield server


def tls(certificate, key, more=""):
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}", {more} }}\n'


def user():
    return f"authorization {{ user: u, password: {SECRET} }}\n"


def login(**options):
    return {"user": "u", "password": SECRET, **options}


async def works(connection):
    got = []
    connection.subscribe("x", lambda *parts: got.append(parts[3]))
    connection.publish("x", b"y" * 100_000)
    await connection.flush(20)
    assert got == [b"y" * 100_000]


@run
async def test_a_context_of_the_users(secure, authority):
    context = authority.context()
    async with connection_to(secure.url, tls=context, **login()) as connection:
        await works(connection)
        assert connection.server_info.tls_required


@run
async def test_tls_url_implies_tls_and_verification(secure, authority, monkeypatch):
    with pytest.raises(NoServersError, match=r"(?i)certificate") as caught:
        await connection_to(secure.url.replace("nats:", "tls:"), **login()).connect()
    assert isinstance(caught.value.__cause__.__cause__, ssl.SSLCertVerificationError)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    async with connection_to(secure.url.replace("nats:", "tls:"), **login()) as connection:
        await works(connection)


@run
async def test_a_server_that_wants_tls_gets_it_verified_even_if_nobody_asked(secure, authority, monkeypatch):
    with pytest.raises(NoServersError, match=r"(?i)certificate"):
        await connection_to(secure.url, **login()).connect()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    async with connection_to(secure.url, **login()) as connection:
        await works(connection)


@run
async def test_only_insecure_skip_verify_opts_out(secure):
    async with connection_to(secure.url, insecure_skip_verify=True, **login()) as connection:
        await works(connection)


@run
async def test_a_wrong_host_is_refused_and_tls_hostname_says_which_is_right(authority):
    with plain_server(config=tls(*authority.issue("other", "nats.example"))) as server:
        with pytest.raises(NoServersError, match=r"(?i)certificate"):
            await connection_to(server.url, tls=authority.context()).connect()
        async with connection_to(server.url, tls=authority.context(), tls_hostname="nats.example") as connection:
            await works(connection)


@run
async def test_client_certificates_come_with_the_context(authority):
    config = tls(*authority.issue("server2", "127.0.0.1"), f'ca_file: "{authority.ca}", verify: true')
    with plain_server(config=config) as server:
        with pytest.raises(NoServersError):
            await connection_to(server.url, tls=authority.context()).connect()
        client = authority.issue("client", "client")
        async with connection_to(server.url, tls=authority.context(client)) as connection:
            await works(connection)


@run
async def test_tls_first(authority):
    config = tls(*authority.issue("first", "127.0.0.1"), "handshake_first: true")
    with plain_server(config=config + user()) as server:
        async with connection_to(server.url, tls=authority.context(), tls_first=True, **login()) as connection:
            await works(connection)
        with pytest.raises(NoServersError):
            await connection_to(server.url, tls=authority.context(), connect_timeout=0.2, **login()).connect()


@run
async def test_it_comes_back_over_tls(secure, authority):
    with Proxy(secure.port) as proxy:
        connection = connection_to(proxy.url, tls=authority.context(), **login())
        async with connection:
            for count in range(1, 4):
                proxy.cut()
                await until(lambda count=count: connection.stats.reconnects == count)
                await connection.flush(20)


@run
async def test_where_tls_was_asked_for_a_plain_server_gets_no_credentials(authority):
    for options in ({"tls": True}, {"tls": authority.context()}, {"tls": True, "insecure_skip_verify": True}):
        with RecordingServer() as recorder:
            with pytest.raises(NoServersError, match="TLS was asked for"):
                await connection_to(recorder.url, **login(**options)).connect()
            assert recorder.received == b""
    with RecordingServer() as recorder:
        with pytest.raises(NoServersError, match="TLS was asked for"):
            await connection_to(recorder.url.replace("nats://", f"tls://u:{SECRET}@")).connect()
        assert recorder.received == b""


@run
async def test_a_server_that_only_pretends_gets_a_handshake_and_no_credentials():
    with RecordingServer({"tls_required": True}) as recorder:
        with pytest.raises(NoServersError):
            await connection_to(recorder.url, connect_timeout=0.3, **login()).connect()
        assert SECRET.encode() not in recorder.received
        assert b"CONNECT" not in recorder.received


@run
async def test_what_is_slipped_in_before_the_handshake_ends_it():
    class Slipping(RecordingServer):
        def greeting(self):
            return super().greeting() + b"+OK\r\n"

    with Slipping({"tls_required": True}) as recorder:
        with pytest.raises(NoServersError, match="more than INFO") as caught:
            await connection_to(recorder.url, **login()).connect()
        assert isinstance(caught.value.__cause__, ProtocolError)
        assert recorder.received == b""


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "the server's wish"])
def test_info_redirect_keeps_tls(authority, asked):
    """A discovered server without TLS is not told who we are; the one with it is found."""
    routes = [free_port(), free_port()]
    urls = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
    common = tls(*authority.issue("cluster", "127.0.0.1")) + user()
    options = {"tls": authority.context()} if asked else {"insecure_skip_verify": True}

    def config(number):
        return common + f"cluster {{ name: c, listen: '127.0.0.1:{routes[number]}', routes: [{urls}] }}"

    @run
    async def story():
        with RecordingServer() as plain:
            # the second one tells the cluster that it is to be found where the plain server is
            advertised = f"client_advertise: '127.0.0.1:{plain.port}'\n"
            with plain_server(config=config(0)) as one, plain_server(config=advertised + config(1)):
                async with connection_to(one.url, randomize=False, **login(**options)) as connection:
                    await until(lambda: f"127.0.0.1:{plain.port}" in connection.server_info.connect_urls)
                    one.kill()
                    await until(lambda: plain.links > 2)
                    assert not connection.connected
                    assert plain.received == b""
                    one.start()
                    await until(lambda: connection.connected)
                    await connection.flush(20)

    story()


@run
async def test_no_secret_in_what_is_said_of_a_failure(secure, authority, caplog):
    wrong = [
        connection_to(secure.url.replace("//", f"//u:{SECRET}x@"), tls=authority.context()),
        connection_to(secure.url.replace("//", f"//{SECRET}x@"), tls=authority.context()),
        connection_to(secure.url, tls=authority.context(), token=SECRET + "x"),
    ]
    for connection in wrong:
        with pytest.raises(NoServersError) as caught:
            await connection.connect()
        error = caught.value
        while error is not None:
            assert SECRET not in f"{error} {error!r}"
            error = error.__cause__ or error.__context__
        assert SECRET not in repr(connection)
    assert SECRET not in caplog.text


def test_a_tls_url_among_others_holds_for_all():
    with pytest.raises(ConfigError):
        Connection(["tls://a", "http://b"])
