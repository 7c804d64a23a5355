"""The history of a repository as the demo reads it."""

import asyncio
import contextlib
import subprocess

import pytest

from headrace.cli.exits import NotFoundError
from headrace.cli.history import commits, count_commits


def git(repository, *arguments, stdin=None):
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], input=stdin, capture_output=True, check=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main")
    return tmp_path


def commit(repository, subject, *, author="A <a@x>", file="f", content="x\n"):
    (repository / file).write_text(content)
    git(repository, "add", "-A")
    identity = ("-c", "user.name=C", "-c", "user.email=c@x", "-c", "commit.gpgsign=false")
    git(repository, *identity, "commit", "-q", "--allow-empty", "--author", author, "-m", subject)
    return git(repository, "rev-parse", "HEAD")


def read(repository, limit=None):
    async def collect():
        found = []
        async with contextlib.aclosing(commits(repository)) as history:
            async for each in history:
                found.append(each)
                if len(found) == limit:
                    break
        return found

    return asyncio.run(collect())


def test_oldest_first_with_numbers(repository):
    first = commit(repository, "first", content="1\n2\n3\n")
    second = commit(repository, "second ünï", author="B <b@x>", content="1\n")
    found = read(repository)
    assert [each.id for each in found] == [first, second]
    assert [(each.author, each.email, each.subject) for each in found] == [
        ("A", "a@x", "first"),
        ("B", "b@x", "second ünï"),
    ]
    assert [(each.files, each.added, each.deleted) for each in found] == [(1, 3, 0), (1, 0, 2)]
    assert asyncio.run(count_commits(repository)) == 2


def test_strange_subjects_and_files(repository):
    commit(repository, "a\x1fb", file="tab\tand\nline")
    commit(repository, "x" * 100_000, content="\0binary")
    found = read(repository)
    assert [each.subject for each in found] == ["a\x1fb", "x" * 100_000]
    assert [each.files for each in found] == [1, 1]
    assert found[1].added == 0


def test_it_may_be_left_in_the_middle(repository):
    for number in range(20):
        commit(repository, str(number))
    assert [each.subject for each in read(repository, limit=3)] == ["0", "1", "2"]


@pytest.mark.parametrize("make", ["nothing", "empty", "missing"])
def test_no_history_is_said_clearly(tmp_path, make, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    place = tmp_path
    if make == "empty":
        git(tmp_path, "init", "-q", "-b", "main")
    elif make == "missing":
        place = tmp_path / "missing"
    with pytest.raises(NotFoundError, match="no git history in"):
        asyncio.run(count_commits(place))


def test_no_git_is_said_clearly(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match="git is not installed"):
        asyncio.run(count_commits(tmp_path))
