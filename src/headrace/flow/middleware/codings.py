"""The codings of `Compress`: each compresses in one go and decompresses in bounded steps. Drivers are imported here."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from headrace.core.errors import CodecError, ConfigError

__all__ = ["CODINGS", "Bound", "Coding"]

_STEP = 256 * 1024
_FIRST_PIECE = 1_024
"""Input goes in by pieces that grow: what a member leaves over is copied, and a body may have very many members."""
_ZSTD_PIECE = 64
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
        view, at = memoryview(body), 0
        while True:
            try:
                at = self._member(view, at, bound)
            except zlib.error as error:
                raise CodecError(f"body is not gzip: {error}") from None
            if at == len(view):
                return bound.body()

    @staticmethod
    def _member(view: memoryview, at: int, bound: Bound) -> int:
        machine, size = zlib.decompressobj(16 + zlib.MAX_WBITS), _FIRST_PIECE
        rest: bytes | memoryview = b""
        while not machine.eof:
            if not rest:
                rest = view[at : at + size]
                at, size = at + len(rest), min(2 * size, _STEP)
            part = machine.decompress(rest, bound.step)
            rest = machine.unconsumed_tail
            if not part and not rest and at == len(view) and not machine.eof:
                raise CodecError("body is not gzip: it ends too early")
            bound.add(part)
        return at - len(machine.unused_data)


class _Lz4:
    def compressor(self, level: int | None) -> Callable[[bytes], bytes]:
        frame = _lz4()
        if level is not None and (isinstance(level, bool) or not -100 <= level <= 16):
            raise ConfigError(f"level of lz4 must be -100..16, got {level!r}")
        return lambda body: bytes(frame.compress(body, compression_level=level or 0, content_checksum=True))

    def decompress(self, body: bytes, bound: Bound) -> bytes:
        frame = _lz4()
        view, at = memoryview(body), 0
        while True:
            try:
                bound.check(frame.get_frame_info(view[at : at + _FIRST_PIECE]).get("content_size") or 0)
                at = self._member(frame.LZ4FrameDecompressor(), view, at, bound)
            except RuntimeError as error:
                raise CodecError(f"body is not lz4: {error}") from None
            if at == len(view):
                return bound.body()

    @staticmethod
    def _member(machine: Any, view: memoryview, at: int, bound: Bound) -> int:
        size = _FIRST_PIECE
        while not machine.eof:
            piece = view[at : at + size] if machine.needs_input else view[:0]
            if machine.needs_input:
                if not piece:
                    raise CodecError("body is not lz4: it ends too early")
                at, size = at + len(piece), min(2 * size, _STEP)
            bound.add(machine.decompress(piece, max_length=bound.step))
        return at - len(machine.unused_data or b"")


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
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG)
        view, at = memoryview(body), 0
        while True:
            try:
                parameters = zstandard.get_frame_parameters(view[at : at + _FIRST_PIECE])
                if parameters.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
                    bound.check(parameters.content_size)
                at = self._member(decompressor.decompressobj(), view, at, bound)
            except zstandard.ZstdError as error:
                raise CodecError(f"body is not zstd: {error}") from None
            if at == len(view):
                return bound.body()

    @staticmethod
    def _member(machine: Any, view: memoryview, at: int, bound: Bound) -> int:
        # It takes no limit on its output, so its pieces stay small: one gives at most a few blocks of 128 KiB.
        while not machine.eof:
            piece = view[at : at + _ZSTD_PIECE]
            if not piece:
                raise CodecError("body is not zstd: it ends too early")
            at += len(piece)
            bound.add(machine.decompress(piece))
        return at - len(machine.unused_data)


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
