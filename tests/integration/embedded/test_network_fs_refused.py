"""A store on a network file system is refused, one that may be on such a thing is warned of (a faked mount table)."""

import asyncio
import warnings

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError
from headrace.embedded.store import files
from headrace.streams.config import StreamConfig


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """``mounted(kind)``: a directory below a mount point of this kind."""
    table = tmp_path / "mounts"
    monkeypatch.setattr(files, "MOUNTS", table)

    def mount(kind, name="data dir"):
        point = tmp_path / name
        point.mkdir()
        escaped = str(point).replace(" ", "\\040")
        table.write_text(
            f"/dev/root / ext4 rw 0 0\nserver:/x {escaped} {kind} rw,relatime 0 0\nnone {escaped}er nfs4 rw 0 0\n"
        )
        return point / "store"

    return mount


async def publish(path):
    async with embedded.open(path) as streams:
        await streams.create_stream(StreamConfig(name="S"))
        return (await streams.publish("S")).sequence


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"]
)
def test_refused(mounted, kind):
    path = mounted(kind)
    with pytest.raises(ConfigError, match=f"on {kind}"):
        asyncio.run(publish(path))
    assert not path.exists() or list(path.iterdir()) == []


@pytest.mark.parametrize("kind", ["9p", "virtiofs", "fuse.other", "fuseblk"])
def test_warned_of(mounted, kind):
    with pytest.warns(UserWarning, match=kind):
        assert asyncio.run(publish(mounted(kind))) == 1


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay", "something-new"])
def test_taken_in_silence(mounted, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(publish(mounted(kind))) == 1


def test_no_mount_table(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "missing")
    assert asyncio.run(publish(tmp_path / "store")) == 1
