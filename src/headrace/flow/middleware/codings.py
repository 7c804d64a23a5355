"""The codings of `Compress`: each compresses in one go and decompresses in bounded steps. Drivers are imported here."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from headrace.core.errors import CodecError, ConfigError

__all__ = ["CODINGS", "Bound", "Coding"]

_STEP = 256 * 1024
_ZSTD_WINDOW_LOG = 23  # 8 MiB
_INSTALL = "pip install 'headrace[compress]'"


class Bound:
    """How many bytes may still come out, counted over all members of a body."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def step(self) -> int:
        """What to ask for next: one byte over the bound is enough to see that it is over."""
        return min(_STEP, self.most - self._size + 1)

    def add(self, part: bytes) -> None:
        """Take a part; ``CodecError`` once it is too much."""
        self._size += len(part)
        self.check(self._size)
        self._parts.append(part)

    def check(self, size: int) -> None:
        """A size that the body declares itself."""
        if size > self.most:
            raise CodecError(f"the body would be over {self.most} bytes when decompressed")

    def body(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


class Coding(Protocol):
    """One content coding."""

    def compressor(self, level: int | None) -> Callable[[bytes], bytes]:
        """A function that compresses; ``ConfigError`` for a wrong level or a missing package."""
        ...

    def decompress(self, body: bytes, bound: Bound) -> bytes:
        """The whole body; ``CodecError`` if it is broken or over the bound."""
        ...


class _Gzip:
    def compressor(self, level: int | None) -> Callable[[bytes], bytes]:
        if level is not None and (isinstance(level, bool) or not 0 <= level <= 9):
            raise ConfigError(f"level of gzip must be 0..9, got {level!r}")

        def compress(body: bytes) -> bytes:
            # zlib writes the header itself, without a time: equal bodies give equal bytes.
            machine = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            return machine.compress(body) + machine.flush()

        return compress

    def decompress(self, body: bytes, bound: Bound) -> bytes:
        rest = body
        while True:
            machine = zlib.decompressobj(16 + zlib.MAX_WBITS)
            while not machine.eof:
                try:
                    part = machine.decompress(rest, bound.step)
                except zlib.error as error:
                    raise CodecError(f"body is not gzip: {error}") from None
                rest = machine.unconsumed_tail
                if not part and not rest and not machine.eof:
                    raise CodecError("body is not gzip: it ends too early")
                bound.add(part)
            rest = machine.unused_data
            if not rest:
                return bound.body()


class _Lz4:
    def compressor(self, level: int | None) -> Callable[[bytes], bytes]:
        frame = _lz4()
        if level is not None and (isinstance(level, bool) or not -100 <= level <= 16):
            raise ConfigError(f"level of lz4 must be -100..16, got {level!r}")
        return lambda body: bytes(frame.compress(body, compression_level=level or 0, content_checksum=True))

    def decompress(self, body: bytes, bound: Bound) -> bytes:
        frame = _lz4()
        rest = body
        while rest:
            try:
                bound.check(frame.get_frame_info(rest).get("content_size") or 0)
                rest = self._member(frame, rest, bound)
            except RuntimeError as error:
                raise CodecError(f"body is not lz4: {error}") from None
        if not body:
            raise CodecError("body is not lz4: it is empty")
        return bound.body()

    @staticmethod
    def _member(frame: Any, rest: bytes, bound: Bound) -> bytes:
        machine = frame.LZ4FrameDecompressor()
        while not machine.eof:
            part = machine.decompress(rest, max_length=bound.step)
            rest = b""
            if not part and machine.needs_input and not machine.eof:
                raise CodecError("body is not lz4: it ends too early")
            bound.add(part)
        return machine.unused_data or b""


class _Zstd:
    def compressor(self, level: int | None) -> Callable[[bytes], bytes]:
        zstandard = _zstandard()
        if level is not None and (isinstance(level, bool) or not 1 <= level <= 22):
            raise ConfigError(f"level of zstd must be 1..22, got {level!r}")
        parameters = zstandard.ZstdCompressionParameters.from_level(
            3 if level is None else level, window_log=_ZSTD_WINDOW_LOG, write_checksum=True, write_content_size=True
        )
        return lambda body: bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(body))

    def decompress(self, body: bytes, bound: Bound) -> bytes:
        zstandard = _zstandard()
        rest = body
        while True:
            try:
                parameters = zstandard.get_frame_parameters(rest)
                if parameters.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
                    bound.check(parameters.content_size)
                machine = zstandard.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG).decompressobj()
                rest = self._member(machine, rest, bound)
            except zstandard.ZstdError as error:
                raise CodecError(f"body is not zstd: {error}") from None
            if not rest:
                return bound.body()

    @staticmethod
    def _member(machine: Any, rest: bytes, bound: Bound) -> bytes:
        # It takes no limit on its output, so it gets its input in pieces: a piece of 64 bytes gives at most a few
        # blocks of 128 KiB.
        view, at = memoryview(rest), 0
        while not machine.eof:
            if at >= len(rest):
                raise CodecError("body is not zstd: it ends too early")
            bound.add(machine.decompress(view[at : at + 64]))
            at += 64
        return bytes(machine.unused_data) + bytes(view[at:])


def _lz4() -> Any:
    return _driver("lz4.frame", "lz4")


def _zstandard() -> Any:
    return _driver("zstandard", "zstandard")


def _driver(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{package} is missing: {_INSTALL}") from error


CODINGS: dict[str, Coding] = {"gzip": _Gzip(), "lz4": _Lz4(), "zstd": _Zstd()}
"""By their names in ``Content-Encoding``."""
