"""Flipped bits, cuts, zeroed and swapped pages: detected or harmless, never wrong bytes, never a deletion."""

import asyncio
import random
import shutil
from collections import Counter

import pytest

from headrace import embedded
from headrace.core.errors import HeadraceError
from headrace.streams.session import SessionOptions
from tests.faults.court import Court
from tests.faults.script import SMALL, made, script

PAGE = 4096
FILES = ("streams.db", "streams.db-wal", "consumers.db", "consumers.db-wal")


async def original(path, copy, published):
    """A store as a kill leaves it: both files and both logs have content."""
    await made(path)
    await script(path, 60, lambda sequence, body: published.update({sequence: body.decode()}))
    async with embedded.open(path, options=SMALL) as streams:
        session = (await streams.consumer("S", "c")).session(SessionOptions())
        for number in range(30):
            body = b"last %d " % number + bytes(300)
            published[(await streams.publish("s.keep", body)).sequence] = body.decode()
        for msg in await session.pull(10, 0):
            await msg.double_ack()
        copy.mkdir(mode=0o700)
        for name in FILES:
            shutil.copyfile(path / name, copy / name)
            (copy / name).chmod(0o600)
            assert (copy / name).stat().st_size > 2 * PAGE


def damage(file, chance):
    """One thing happens to the file; what it was."""
    content = bytearray(file.read_bytes())
    what = chance.choice(["flip", "flip", "flip", "burst", "zero page", "zero sector", "cut", "swap", "empty"])
    if what == "empty" and chance.random() < 0.7:
        what = "flip"
    place = chance.randrange(len(content))
    page, other = (chance.randrange(len(content) // PAGE) * PAGE for _ in range(2))
    match what:
        case "flip":
            content[place] ^= 1 << chance.randrange(8)
        case "burst":
            content[place : place + 16] = chance.randbytes(len(content[place : place + 16]))
        case "zero page":
            content[page : page + PAGE] = bytes(PAGE)
        case "zero sector":
            content[page : page + 512] = bytes(512)
        case "cut":
            del content[place:]
        case "swap":
            content[page : page + PAGE], content[other : other + PAGE] = (
                content[other : other + PAGE], content[page : page + PAGE],
            )  # fmt: skip
        case "empty":
            content.clear()
    file.write_bytes(content)
    return what


async def looked_at(path, published):
    """Everything that the engine hands out is compared; what it read, what it complained of, whether it opened."""
    read, complaints, opened = {}, [], False
    try:
        async with embedded.open(path, options=SMALL) as streams:
            opened = True
            stream = await streams.stream("S")
            for look in (all_read(stream), all_pulled(stream), one_by_one(stream)):
                try:
                    async for sequence, body in look:
                        assert published.get(sequence) == body.decode(errors="replace"), f"wrong bytes at {sequence}"
                        read[sequence] = body.decode()
                except HeadraceError as error:
                    complaints.append(error)
            report = await streams.verify()
            complaints += report.problems
    except HeadraceError as error:
        complaints.append(error)
    return read, complaints, opened


async def all_read(stream):
    for each in await stream.read(limit=10_000):
        if each.subject == "s.keep":
            yield each.sequence, each.data


async def all_pulled(stream):
    session = (await stream.consumer("c")).session(SessionOptions())
    try:
        while messages := await session.pull(50, 0):
            for msg in messages:
                if msg.subject == "s.keep":
                    yield msg.metadata.sequence.stream, msg.data
    finally:
        await session.aclose()


async def one_by_one(stream):
    for sequence in range(1, 100, 9):
        try:
            found = await stream.get_msg(sequence)
        except embedded.CorruptedError:
            raise
        except HeadraceError:
            continue  # purged
        if found.subject == "s.keep":
            yield found.sequence, found.data


def verdict(court, path, published, whole, file):
    """What became of one damaged store: detected, harmless, or (of a log) shortened; anything else fails."""
    before = court.contents(path)
    copies = {name: (path / name).read_bytes() for name in FILES if name.endswith(".db")}
    read, complaints, opened = asyncio.run(looked_at(path, published))
    after = court.contents(path)
    missing = {sequence for sequence, body in before.items() if after.get(sequence) != body}
    assert not missing, f"deleted: {sorted(missing)[:5]}, told {complaints[:2]}"
    if not opened:
        assert {name: (path / name).read_bytes() for name in copies} == copies, f"touched: {complaints[:2]}"
    if complaints:
        return "detected"
    if read == whole:
        return "harmless"
    lost = whole.keys() - read.keys()
    assert file.endswith("-wal"), f"not noticed: {sorted(lost)[:5]} of {len(whole)} are gone"
    # a log that ends early is what a power cut leaves: SQLite goes back to the last whole commit
    assert lost, "something came back that was gone, and nothing is lost"
    assert min(lost) > max(read.keys() & whole.keys(), default=0), f"a hole: {sorted(lost)[:5]}"
    return "shortened"


def damaged(tmp_path, seeds):
    published, counts, whole = {}, Counter(), {}
    asyncio.run(original(tmp_path / "made", tmp_path / "original", published))
    shutil.copytree(tmp_path / "original", tmp_path / "sound")
    whole, complaints, _ = asyncio.run(looked_at(tmp_path / "sound", published))
    assert len(whole) > 60
    assert not complaints
    with Court() as court:
        for seed in seeds:
            chance, path = random.Random(seed), tmp_path / "data"
            shutil.copytree(tmp_path / "original", path)
            file = chance.choice(FILES)
            what = damage(path / file, chance)
            try:
                counts[verdict(court, path, published, whole, file)] += 1
            except BaseException as error:
                error.add_note(f"seed {seed}: {what} in {file}")
                raise
            counts[f"{file} {what}"] += 1
            shutil.rmtree(path)
    print(f"\n{dict(sorted(counts.items()))}")
    return counts


def test_damage_some(tmp_path):
    assert damaged(tmp_path, range(40))["detected"] > 5


@pytest.mark.chaos
def test_damage(tmp_path):
    counts = damaged(tmp_path, range(500))
    assert counts["detected"] > 100
    assert counts["harmless"] > 0
