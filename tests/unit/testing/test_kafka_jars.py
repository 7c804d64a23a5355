"""Kafka's jars: fetched once, whole and as listed, or not at all. A stand-in for Maven, and two small jars."""

import hashlib
import os
from pathlib import Path

import pytest

from headrace.core.errors import ConfigError
from headrace.testing.kafka import __main__ as program
from headrace.testing.kafka import jars as module
from headrace.testing.kafka.jars import find_libs, install

JARS = {"one.jar": b"first", "two.jar": b"second"}


@pytest.fixture
def maven(tmp_path, monkeypatch):
    """Writes the program mvn: it copies JARS to libs/ and then runs these lines."""
    listed = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in JARS.items())
    home, path, source = (tmp_path / name for name in ("home", "path", "source"))
    for folder in (home, path, source):
        folder.mkdir()
    (home / "jars.sha256").write_text(listed)
    (home / "pom.xml").write_text("<project/>")
    for name, content in JARS.items():
        (source / name).write_bytes(content)
    monkeypatch.setattr(module, "_HERE", home)
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")

    def write(*lines):
        copy = f"test -f pom.xml || exit 9; mkdir libs; cp {source}/* libs"
        (path / "mvn").write_text("\n".join(["#!/bin/sh", copy, f"echo ran >> {tmp_path}/runs", *lines]))
        (path / "mvn").chmod(0o755)

    write()
    return write


def contents(libs):
    return {jar.name: jar.read_bytes() for jar in libs.iterdir()}


def test_fetches_once_and_leaves_nothing_else(maven, tmp_path):
    for _ in range(2):
        assert install(tmp_path / "kafka") == tmp_path / "kafka" / "libs"
    assert contents(tmp_path / "kafka" / "libs") == JARS
    assert [found.name for found in (tmp_path / "kafka").iterdir()] == ["libs"]
    assert (tmp_path / "runs").read_text() == "ran\n"


@pytest.mark.parametrize("damage", [lambda jar: jar.unlink(), lambda jar: jar.write_bytes(b"cut")])
def test_what_is_not_whole_is_replaced(maven, tmp_path, damage):
    libs = install(tmp_path / "kafka")
    damage(libs / "two.jar")
    install(tmp_path / "kafka")
    assert contents(libs) == JARS


def test_another_jar_than_the_list_names_is_refused(maven, tmp_path):
    maven("echo other > libs/two.jar")
    with pytest.raises(ConfigError, match=r"not as jars\.sha256 lists it: two\.jar"):
        install(tmp_path / "kafka")
    assert not list((tmp_path / "kafka").iterdir())


def test_a_maven_that_fails_is_quoted(maven, tmp_path):
    maven("echo no network", "exit 1")
    with pytest.raises(ConfigError, match=r"failed:\nno network"):
        install(tmp_path / "kafka")


def test_without_a_maven_it_says_so(maven, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no mvn here"):
        install(tmp_path / "kafka")


def test_jars_are_found_above_and_in_the_cache(maven, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path / "home")
    with pytest.raises(ConfigError, match=r"python -m headrace\.testing\.kafka"):
        find_libs()
    assert find_libs_after(install()) == Path.home() / ".cache/headrace/kafka-4.1.0/libs"
    near = install(tmp_path / ".servers" / "kafka-4.1.0")
    assert find_libs_after(near) == near


def find_libs_after(installed):
    assert find_libs() == installed
    return installed


def test_the_program_says_where_they_are_or_why_not(maven, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program, "train", lambda libs: None)
    assert program.main([str(tmp_path / "kafka")]) == 0
    assert str(tmp_path / "kafka" / "libs") in capsys.readouterr().out
    maven("exit 1")
    assert program.main([str(tmp_path / "other")]) == 1
    assert "mvn" in capsys.readouterr().err


def test_the_list_that_ships_names_every_jar_of_kafka():
    wanted = module._wanted()
    assert len(wanted) == 45
    assert f"kafka_2.13-{module.VERSION}.jar" in wanted
    assert module.VERSION in (module._HERE / "pom.xml").read_text()
