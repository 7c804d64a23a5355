"""The doctor on sound and on damaged stores: it names the file or message, says what to do, and changes nothing."""

import shutil
from pathlib import Path

import apsw
import pytest

from tests.integration.cli.commands import Here


@pytest.fixture
def headrace(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    return Here(tmp_path / "data", capsys)


@pytest.fixture
def damaged(headrace, tmp_path):
    """A store of two streams, one of which has a message that was changed behind its back; and what it was before."""
    for number in range(3):
        headrace.done("pub", "orders", f"order {number}")
    headrace.done("pub", "payments", "1")
    connection = apsw.Connection(str(tmp_path / "data" / "streams.db"))
    connection.execute("UPDATE msg_1 SET data = CAST('order 9' AS BLOB) WHERE seq = 2")
    connection.close()
    return headrace


def bad(report):
    return {check["check"]: check["text"] for check in report.json["checks"] if check["verdict"] == "bad"}


def contents(path):
    return {file.name: file.read_bytes() for file in Path(path).glob("*.db")}


def test_a_sound_store(headrace, tmp_path):
    fresh = headrace.done("doctor", "--json").json
    assert fresh["healthy"] is True
    assert not (tmp_path / "data").exists()
    headrace.done("pub", "orders", "x")
    report = headrace.done("doctor", "--json").json
    checks = {check["check"]: check for check in report["checks"]}
    assert set(checks) == {
        "machine", "sqlite", "directory", "file system", "space", "sync", "streams.db", "consumers.db", "store",
    }  # fmt: skip
    assert checks["store"] == {"check": "store", "verdict": "ok", "text": "1 message, all intact"}
    assert headrace.done("doctor").out.count("\n") == 9
    assert "store  " not in headrace.done("doctor", "--no-verify").out


@pytest.mark.parametrize("fault", ["foreign", "writable"])
def test_a_directory_that_cannot_be_used(headrace, tmp_path, fault):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    if fault == "foreign":
        (data / "letter.txt").write_text("dear")
    else:
        data.chmod(0o777)
    result = headrace("doctor", "--json")
    assert result.code == 1
    assert result.json["healthy"] is False
    assert set(bad(result)) == {"directory"}


@pytest.mark.parametrize("name", ["streams.db", "consumers.db"])
@pytest.mark.parametrize("fault", ["missing", "empty", "foreign", "cut"])
def test_a_damaged_file_is_named(headrace, tmp_path, name, fault):
    headrace.done("pub", "orders", "x")
    file = tmp_path / "data" / name
    if fault == "missing":
        file.unlink()
    elif fault == "empty":
        file.write_bytes(b"")
    elif fault == "foreign":
        file.write_bytes(b"not a database" * 1_000)
    else:
        file.write_bytes(file.read_bytes()[:4096])
    before = contents(tmp_path / "data")
    result = headrace("doctor", "--json")
    found = bad(result)
    assert result.code == 1
    assert "headrace stream restore FILE --url NEW" in found["advice"]
    assert set(found) - {"advice", "store"} == ({name} if fault != "cut" else set(found) & {name})
    assert contents(tmp_path / "data") == before


def test_a_damaged_message_is_named(damaged, tmp_path):
    before = contents(tmp_path / "data")
    result = damaged("doctor", "--json")
    found = bad(result)
    assert result.code == 1
    assert found["store"] == "orders@2: the checksum does not match"
    assert found["advice"].startswith("whoever reads orders stops at the damaged message")
    assert "payments" not in found["advice"]
    assert contents(tmp_path / "data") == before
    assert "bad      store        orders@2: the checksum" in damaged("doctor").out


def test_a_damaged_message_is_never_printed_and_others_are(damaged):
    for command in (["tail", "orders"], ["get", "orders", "2"]):
        result = damaged(*command)
        assert result.code == 1
        assert "order 9" not in result.out
        assert result.err == "headrace: streams.db stream orders sequence 2: the checksum does not match\n"
    assert damaged.done("get", "orders", "3", "--raw").out == "order 2"
    assert damaged.done("get", "payments", "--raw").out == "1"


def test_many_damaged_messages_are_counted(headrace, tmp_path):
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(30)))
    headrace.done("pub", "orders", "--file", tmp_path / "lines")
    connection = apsw.Connection(str(tmp_path / "data" / "streams.db"))
    connection.execute("UPDATE msg_1 SET crc = crc + 1")
    connection.close()
    texts = [check["text"] for check in headrace("doctor", "--json").json["checks"] if check["check"] == "store"]
    assert len(texts) == 11
    assert texts[-1] == "and 20 more"


def test_the_advice_helps(headrace, tmp_path):
    headrace.done("pub", "orders", "x")
    headrace.done("stream", "backup", tmp_path / "backup")
    shutil.rmtree(tmp_path / "data" / "wake")
    (tmp_path / "data" / "streams.db").write_bytes(b"")
    assert headrace("doctor").code == 1
    assert headrace("pub", "orders", "y").code == 1, "nothing begins anew over what is left"
    headrace.done("stream", "restore", tmp_path / "backup", url=tmp_path / "new")
    assert headrace.done("doctor", "--json", url=tmp_path / "new").json["healthy"] is True
    assert headrace.done("get", "orders", "--raw", url=tmp_path / "new").out == "x"
