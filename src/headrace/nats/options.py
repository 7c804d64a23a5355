"""ConnectionOptions: how a connection to NATS servers is made and kept."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError
from headrace.nats.subjects import check_subject

__all__ = ["ConnectionOptions", "Signature"]

_KIB, _MIB = 1024, 1024 * 1024
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a ``sign`` callback answers: the raw Ed25519 `signature` of the nonce, and whose it is.

    `nkey` is the public key (``U…``), `jwt` the user's JWT; one of them at least.
    """

    signature: bytes = field(repr=False)
    nkey: str | None = None
    jwt: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.nkey is None and self.jwt is None:
            raise ConfigError("a Signature needs the nkey or the jwt that it belongs to")


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """How a connection is made and kept. A wrong value is a ``ConfigError`` that names the field, never a secret.

    Credentials, one kind at most: ``user`` and ``password``; ``token``; ``nkey_seed``; ``credentials`` (path of a
    ``.creds`` file, read again at each connect, or its bytes); ``sign`` (called with the nonce). Seeds and credentials
    need the extra ``nats-auth``. ``tls``: ``True`` or a context of yours, which stays as it is; it verifies the server
    unless ``insecure_skip_verify`` says the same thing aloud. ``reconnect_wait`` doubles up to ``reconnect_max_wait``
    with each round over the servers; ``max_reconnects``: attempts per server in a row (None: no end).
    ``reconnect_buffer``: bytes kept while away. ``write_limit``: bytes collected above which `room` waits.
    ``max_frame``: the largest message taken. ``on_…``: plain callables, called on the loop: ``on_disconnect(error)``,
    ``on_reconnect()``, ``on_closed(error or None)``, ``on_error(error)`` (None: logged), ``on_lame_duck()``.
    """

    name: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)
    credentials: str | Path | bytes | None = field(default=None, repr=False)
    sign: Callable[[bytes], Signature] | None = field(default=None, repr=False)
    tls: ssl.SSLContext | bool | None = None
    tls_first: bool = False
    tls_hostname: str | None = None
    insecure_skip_verify: bool = False
    connect_timeout: Duration = 2.0
    reconnect: bool = True
    reconnect_wait: Duration = 0.1
    reconnect_max_wait: Duration = 5.0
    max_reconnects: int | None = None
    ping_interval: Duration = 20.0
    max_pings_out: int = 2
    reconnect_buffer: int = 8 * _MIB
    write_limit: int = 2 * _MIB
    max_frame: int = 64 * _MIB
    inbox_prefix: str = "_INBOX"
    use_discovered: bool = True
    randomize: bool = True
    drain_timeout: Duration = 30.0
    on_disconnect: Callable[[BaseException], None] | None = None
    on_reconnect: Callable[[], None] | None = None
    on_closed: Callable[[BaseException | None], None] | None = None
    on_error: Callable[[BaseException], None] | None = None
    on_lame_duck: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        for name in ("tls_first", "insecure_skip_verify", "reconnect", "use_discovered", "randomize"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be a bool, got {getattr(self, name)!r}")
        for name in ("on_disconnect", "on_reconnect", "on_closed", "on_error", "on_lame_duck", "sign"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ConfigError(f"{name} must be callable, got {getattr(self, name)!r}")
        self._check_texts()
        self._check_credentials()
        self._check_tls()
        self._check_lengths_of_time()
        self._check_counts()

    @property
    def has_credentials(self) -> bool:
        """Whether any kind of credentials is given."""
        return any(getattr(self, name) is not None for name in ("user", *_SECRETS, "sign"))

    def _check_texts(self) -> None:
        for name in ("name", "user", "tls_hostname"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"{name} must be text, got {value!r}")
        for name in ("password", "token", "nkey_seed"):  # a value that may be a secret is not shown
            if not isinstance(getattr(self, name), str | None):
                raise ConfigError(f"{name} must be text, got {type(getattr(self, name)).__name__}")
        if not isinstance(self.credentials, str | Path | bytes | None):
            raise ConfigError(f"credentials must be a path or bytes, got {type(self.credentials).__name__}")
        check_subject(self.inbox_prefix, "inbox_prefix")

    def _check_credentials(self) -> None:
        kinds = [
            name for name in ("user", "token", "nkey_seed", "credentials", "sign") if getattr(self, name) is not None
        ]
        if len(kinds) > 1:
            raise ConfigError(f"one kind of credentials is enough, got {' and '.join(kinds)}")
        if self.password is not None and self.user is None:
            raise ConfigError("password needs a user")
        if any(getattr(self, name) in ("", b"") for name in ("token", "nkey_seed", "credentials")):
            raise ConfigError(f"{kinds[0]} must not be empty")

    def _check_tls(self) -> None:
        if self.tls is None or self.tls is True:
            return
        if not isinstance(self.tls, ssl.SSLContext):
            raise ConfigError(f"tls must be True or an ssl.SSLContext, got {self.tls!r}")
        verifies = self.tls.verify_mode is ssl.CERT_REQUIRED and self.tls.check_hostname
        if verifies is self.insecure_skip_verify:
            have = "verifies" if verifies else "does not verify"
            raise ConfigError(
                f"tls: the context {have} the server, but insecure_skip_verify={self.insecure_skip_verify}"
            )

    def _check_lengths_of_time(self) -> None:
        for name, least in (
            ("connect_timeout", 0.001),
            ("reconnect_wait", 0.001),
            ("reconnect_max_wait", 0.001),
            ("ping_interval", 0.001),
            ("drain_timeout", 0.001),
        ):
            value: Any = getattr(self, name)  # frozen for the user; here each length of time gets its one form
            length = timedelta(seconds=seconds_of(value, name, least=least, most=_DAY))
            object.__setattr__(self, name, length)
        if self.seconds("reconnect_max_wait") < self.seconds("reconnect_wait"):
            raise ConfigError(f"reconnect_max_wait must be at least reconnect_wait, got {self.reconnect_max_wait}")

    def _check_counts(self) -> None:
        for name, least, most in (
            ("max_reconnects", 1, 1 << 60),
            ("max_pings_out", 1, 1000),
            ("reconnect_buffer", 0, 1 << 60),
            ("write_limit", 1, 1 << 60),
            ("max_frame", 4 * _KIB, 1 << 40),
        ):
            value = getattr(self, name)
            if name == "max_reconnects" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"{name} must be an integer in {least}..{most}, got {value!r}")

    def seconds(self, name: str) -> float:
        """A length of time of these options, in seconds."""
        length: Any = getattr(self, name)
        return seconds_of(length, name)


_SECRETS = ("password", "token", "nkey_seed", "credentials")
