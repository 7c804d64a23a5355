"""The demo on a small repository: it proves what it says, stops at any moment, and goes on where it stopped."""

import json
import os
import signal
import subprocess

import pytest

from headrace.cli.main import main
from tests.integration.cli.commands import Here, ended, make_repository, process


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repository", commits=60, authors=3)


def demo(capsys, *arguments):
    code = main(["demo", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    return code, json.loads(out)


def test_it_proves_what_it_says(repository, tmp_path, capsys):
    code, facts = demo(capsys, "--repo", repository, "--dir", tmp_path / "state")
    assert code == 0
    assert facts["published"] == facts["published_now"] == 60
    assert facts["handled"] + facts["dead"] == 60
    assert facts["retried"] >= 1, "the first event always fails once"
    assert facts["dead"] >= 1, "the third event always dies"
    assert (facts["authors"], facts["out_of_order"], facts["overlaps"], facts["waiting"]) == (3, 0, 0, 0)
    assert facts["holds"] is True
    assert (tmp_path / "state" / ".gitignore").read_text() == "*\n"

    code, again = demo(capsys, "--repo", repository, "--dir", tmp_path / "state")
    assert (code, again["published_now"], again["handled_now"], again["dead_now"]) == (0, 0, 0, 0)
    assert (again["handled"], again["dead"]) == (facts["handled"], facts["dead"])


def test_dead_letters_sent_back_are_handled(repository, tmp_path, capsys):
    _, facts = demo(capsys, "--repo", repository, "--dir", tmp_path / "state")
    headrace = Here(tmp_path / "state" / "store", capsys)
    assert len(headrace.done("dead", "ls", "commits", "--json").json) == facts["dead"]
    headrace.done("dead", "redrive", "commits", "--all")
    code, after = demo(capsys, "--repo", repository, "--dir", tmp_path / "state")
    assert (code, after["handled"], after["dead"], after["handled_now"]) == (0, 60, 0, facts["dead"])
    assert after["holds"] is True


def test_new_commits_and_a_limit(repository, tmp_path, capsys):
    state = ("--dir", tmp_path / "state")
    code, first = demo(capsys, "--repo", repository, *state, "--limit", "25")
    assert (code, first["published"], first["holds"]) == (0, 25, True)
    code, second = demo(capsys, "--repo", repository, *state)
    assert (code, second["published"], second["published_now"]) == (0, 60, 35)
    git = ["git", "-C", str(repository), "-c", "user.name=N", "-c", "user.email=n@x", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one more"], check=True)
    code, third = demo(capsys, "--repo", repository, *state)
    assert (code, third["published"], third["published_now"], third["holds"]) == (0, 61, 1, True)


def test_for_people_without_a_terminal(repository, tmp_path, capsys):
    assert main(["demo", "--repo", str(repository), "--url", str(tmp_path / "store")]) == 0
    out = capsys.readouterr().out
    for said in (
        "60 commits in",
        "nothing lost   60 published = ",
        "order kept     3 authors, 0 of",
        "one at a time  0",
    ):
        assert said in out
    assert "LOST" not in out


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_it_goes_on_where_it_was_stopped(tmp_path, capsys, how):
    # one author, so that every retry holds up all the others: slow enough to be stopped in the middle
    repository = make_repository(tmp_path / "repository", commits=800, authors=1)
    state = ("--dir", tmp_path / "state")
    with process("demo", "--repo", repository, *state) as running:
        while "handled" not in (line := running.stdout.readline()):
            assert line, running.stderr.read()
        running.send_signal(how)
        out, err = running.communicate(timeout=30)
    if how is signal.SIGKILL:
        assert running.returncode == -how
    else:
        assert (running.returncode, err) == (130, "")
        assert "stopped; " in out
        assert "LOST" not in out
    code, facts = demo(capsys, "--repo", repository, *state)
    assert code == 0
    assert facts["published"] == 800
    assert 0 < facts["handled_before"] < 800
    assert facts["handled_now"] > 0
    assert facts["holds"] is True
    assert facts["repeated"] <= (8 if how is signal.SIGKILL else 0)


@pytest.mark.parametrize("make", ["nothing", "empty"])
def test_no_history_is_not_found(tmp_path, capsys, make, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if make == "empty":
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert main(["demo", "--repo", str(tmp_path), "--dir", str(tmp_path / "state")]) == 3
    assert capsys.readouterr().err.startswith(f"headrace: no git history in {tmp_path}: fatal: ")
    assert not (tmp_path / "state").exists()


def test_no_git_is_not_found(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.fspath(tmp_path))
        result = ended(process("demo", "--dir", tmp_path / "state"))
    assert result.code == 3
    assert "git is not installed" in result.err
