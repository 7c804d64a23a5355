"""The checksum of a stored message."""

from __future__ import annotations

from zlib import crc32

__all__ = ["checksum"]


def checksum(seq: int, ts: int, subject: str, headers: bytes | None, data: bytes) -> int:
    """The checksum of a row: over sequence, time, subject, header block and body.

    Odd factors, so that every flipped bit of sequence, time or subject shows in where the sum starts.
    """
    start = (seq * 0x9E3779B1 ^ (ts ^ ts >> 32) * 0x85EBCA6B ^ crc32(subject.encode()) ^ seq >> 32) & 0xFFFFFFFF
    return crc32(data, crc32(headers, start) if headers else start)
