"""Servers: what a URL may be, the pool, and the wait before the next round."""

import pytest

from headrace.core.errors import ConfigError
from headrace.nats.servers import Pool, Server, delay, parse_servers

GOOD = {
    "nats://127.0.0.1:4333": ("127.0.0.1", 4333, False),
    "tls://host": ("host", 4222, True),
    "host:1": ("host", 1, False),
    "localhost": ("localhost", 4222, False),
    "nats://[::1]:4224": ("::1", 4224, False),
    "nats://Host.Example/": ("host.example", 4222, False),
    " nats://padded:4222 ": ("padded", 4222, False),
}


@pytest.mark.parametrize(("url", "expected"), GOOD.items())
def test_good_urls(url, expected):
    (server,) = parse_servers(url)
    assert (server.host, server.port, server.tls) == expected


@pytest.mark.parametrize(
    "url",
    ["", "nats://", "http://host", "nats://host:0", "nats://host:99999", "nats://host:x", "nats://ho st", "nats://h/x",
     "nats://h?x=1", "nats://h\r\n", "nats://[::1", "nats://a\x00b", None, 3],
)  # fmt: skip
def test_bad_urls(url):
    with pytest.raises(ConfigError):
        parse_servers([url])


def test_no_server_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        parse_servers([])


def test_a_text_may_name_several_and_none_twice():
    servers = parse_servers("nats://a:1,b:2, nats://A:1")
    assert [str(server) for server in servers] == ["a:1", "b:2"]


def test_credentials_come_from_the_url_and_are_never_shown():
    one, two, three = parse_servers(["nats://user:p%40ss@h:1", "nats://s3cret@h:2", "nats://us%20er:@h:3"])
    assert (one.user, one.password, one.token) == ("user", "p@ss", None)
    assert (two.user, two.password, two.token) == (None, None, "s3cret")
    assert (three.user, three.password) == ("us er", "")
    for server in (one, two):
        for text in (str(server), repr(server)):
            assert "p@ss" not in text
            assert "s3cret" not in text


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cret@host",
        "nats://s3cret@host:x",
        "user:s3cret@ho st",
        "s3cret@h/x",
        "nats://user:s3cret",
        "user:s3cret",
        "nats://us er:s3cret@[::1]:x",
        "nats://a:b@c:s3cret",
    ],
)
def test_a_refused_url_does_not_show_its_secret(url):
    with pytest.raises(ConfigError) as caught:
        parse_servers(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_backoff_bounds():
    for rounds in [*range(12), 100, 10_000]:
        full = min(5.0, 0.1 * 2 ** min(rounds, 40))
        waits = [delay(rounds, wait=0.1, most=5.0) for _ in range(200)]
        assert all(full / 2 <= wait <= full for wait in waits)
        assert len(set(waits)) > 100  # a crowd does not come back in step


def pool_of(*urls, **options):
    given = parse_servers(list(urls))
    return Pool(given, randomize=options.get("randomize", False)), given


def names(pool):
    return [str(server) for server in pool.round()]


def test_given_servers_are_shuffled_only_when_asked():
    urls = [f"h{number}" for number in range(50)]
    assert names(pool_of(*urls)[0]) == [f"{url}:4222" for url in urls]
    shuffled = names(pool_of(*urls, randomize=True)[0])
    assert shuffled != [f"{url}:4222" for url in urls]
    assert sorted(shuffled) == sorted(f"{url}:4222" for url in urls)


def test_the_server_just_lost_comes_last():
    pool, (one, *_) = pool_of("a", "b", "c")
    pool.last(one)
    assert names(pool) == ["b:4222", "c:4222", "a:4222"]


def test_learnt_servers_come_and_go_and_given_ones_stay():
    pool, (one, _) = pool_of("a:1", "b:2")
    pool.learn(["c:3", "b:2", "nonsense:x", "", "d:4", "c:3"], one, tls=False, secured=False)
    assert names(pool) == ["a:1", "b:2", "c:3", "d:4"]
    pool.learn(["d:4"], one, tls=False, secured=False)
    assert names(pool) == ["a:1", "b:2", "d:4"]
    learnt = pool.round()[-1]
    pool.learn(["e:5"], learnt, tls=False, secured=False)
    assert names(pool) == ["a:1", "b:2", "d:4", "e:5"]  # the one that tells is there, whatever it says


def test_a_hostile_info_does_not_grow_the_pool_without_end():
    pool, (one,) = pool_of("a")
    pool.learn([f"h{number}:1" for number in range(50_000)], one, tls=False, secured=False)
    assert len(pool) <= 1001


def test_a_learnt_server_gets_the_credentials_of_the_one_that_told():
    pool, (one,) = pool_of("nats://user:secret@a:1")
    pool.learn(["evil:x@c:3", "nats://other:word@d:4"], one, tls=False, secured=False)
    assert [(server.host, server.user, server.password) for server in pool.round()[1:]] == [
        ("c", "user", "secret"),
        ("d", "user", "secret"),
    ]


def test_info_redirect_keeps_tls():
    """What was heard before TLS may be anybody's: bare addresses only, and these must prove the teller's own name."""
    pool, (one,) = pool_of("tls://cluster.example")
    pool.learn(["10.0.0.7:4222", "[::7]:4222", "evil.example:4222"], one, tls=True, secured=False)
    assert [(server.host, server.tls, server.tls_name) for server in pool.round()[1:]] == [
        ("10.0.0.7", True, "cluster.example"),
        ("::7", True, "cluster.example"),
    ]
    pool.learn(["other.example:4222", "10.0.0.7:4222"], pool.round()[1], tls=True, secured=True)
    assert [(server.host, server.tls, server.tls_name) for server in pool.round()[1:]] == [
        ("10.0.0.7", True, "cluster.example"),
        ("other.example", True, None),
    ]


def test_servers_are_themselves():
    assert Server("a", 1) != Server("a", 1)
