"""Every exception of apsw becomes one of ours."""

import apsw
import pytest

from headrace import embedded
from headrace.core.errors import Fault, HeadraceError, PublishError, StoreError
from headrace.embedded.errors import DiskFullError, SyncFailedError, publish_error, translated
from headrace.streams.config import StreamConfig
from headrace.testing.virtual import virtual_time

ALL = sorted(
    (each for each in vars(apsw).values() if isinstance(each, type) and issubclass(each, apsw.Error)),
    key=lambda each: each.__name__,
)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_translated(kind):
    assert isinstance(translated(kind("why")), StoreError)
    assert isinstance(publish_error(kind("why")), PublishError)


def test_faults():
    assert publish_error(apsw.FullError("full")).fault is Fault.UNAVAILABLE
    assert isinstance(translated(apsw.FullError("full")), DiskFullError)
    assert publish_error(apsw.IOError("eio")).fault is Fault.UNKNOWN
    assert isinstance(translated(apsw.IOError("eio")), SyncFailedError)


@pytest.mark.parametrize("kind", [apsw.IOError, apsw.FullError, apsw.BusyError, apsw.CorruptError])
def test_through_the_whole_engine(kind):
    def broken(connection):
        raise kind("planted")

    @virtual_time
    async def run():
        async with embedded.open(":memory:") as streams:
            await streams.create_stream(StreamConfig(name="S"))
            with pytest.raises(HeadraceError):
                await streams._room.write(broken)
            with pytest.raises(HeadraceError):
                await streams._room.read(broken)
            assert (await streams.publish("S")).sequence == 1

    run()
