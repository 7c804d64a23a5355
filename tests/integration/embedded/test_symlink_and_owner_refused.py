"""Inside a store no symlink is followed, and nobody else may write."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError, StoreError
from headrace.embedded import NotAStoreError, StoreNotFoundError
from headrace.embedded.store import files


async def touch(path, **fields):
    async with embedded.open(path, options=embedded.EmbeddedOptions(**fields)):
        pass


def test_symlinks(tmp_path):
    asyncio.run(touch(tmp_path / "store"))
    (tmp_path / "link").symlink_to(tmp_path / "store")
    asyncio.run(touch(tmp_path / "link"))
    (tmp_path / "store" / "streams.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "store" / "streams.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StoreError, match="symlink"):
        asyncio.run(touch(tmp_path / "store"))


@pytest.mark.parametrize("name", ["streams.db", "consumers.db", "."])
def test_writable_by_others(tmp_path, name):
    asyncio.run(touch(tmp_path / "store"))
    (tmp_path / "store" / name).chmod(0o777)
    with pytest.raises(StoreError, match="mode 0777"):
        asyncio.run(touch(tmp_path / "store"))


def test_missing_and_foreign_directories(tmp_path):
    with pytest.raises(StoreNotFoundError):
        asyncio.run(touch(tmp_path / "nothing", create=False))
    with pytest.raises(StoreNotFoundError):
        asyncio.run(touch(tmp_path / "nothing", read_only=True))
    (tmp_path / "full").mkdir(mode=0o700)
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(NotAStoreError, match=r"letter\.txt"):
        asyncio.run(touch(tmp_path / "full"))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_network_file_systems(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(files, "MOUNTS", mounts)
    for kind, wanted in (("nfs4", ConfigError), ("fuse.sshfs", ConfigError), ("9p", UserWarning)):
        mounts.write_text(f"/dev/root / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\n")
        with pytest.raises(wanted) if wanted is ConfigError else pytest.warns(wanted):
            asyncio.run(touch(tmp_path / f"store-{kind}"))
