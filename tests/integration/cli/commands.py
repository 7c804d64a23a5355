"""The command line as tests call it: in this process where that is enough, else as a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from headrace.cli.main import main

SOURCE = Path(__file__).parents[3] / "src"


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


class Here:
    """`headrace ARGUMENTS --url DIRECTORY` in this process."""

    def __init__(self, url, capsys):
        self.url = str(url)
        self._capsys = capsys

    def __call__(self, *arguments, url=None):
        code = main([*map(str, arguments), "--url", str(url or self.url)])
        out, err = self._capsys.readouterr()
        return Ended(int(code), out, err)

    def done(self, *arguments, url=None):
        ended = self(*arguments, url=url)
        assert ended.code == 0, ended
        assert ended.err == "", ended
        return ended


def process(*arguments, **options):
    """`headrace ARGUMENTS` as a process of its own, its output in pipes."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        **options,
    )


def ended(running, *, stdin=None, timeout=50):
    """Wait for a process and take what it printed."""
    out, err = running.communicate(stdin, timeout=timeout)
    return Ended(running.returncode, out, err)


def make_repository(path, *, commits, authors):
    """A git repository with so many commits by so many authors, the same ids each time."""
    subprocess.run(["git", "init", "-q", "-b", "main", str(path)], check=True)
    stream = []
    for number in range(commits):
        who = f"Author {number % authors} <author{number % authors}@example.org> {1_700_000_000 + number} +0000"
        subject, content = f"Commit {number}", f"{number}\n"
        stream.append(
            f"commit refs/heads/main\nauthor {who}\ncommitter {who}\ndata {len(subject)}\n{subject}\n"
            f"M 100644 inline file{number % 5}\ndata {len(content)}\n{content}\n"
        )
    subprocess.run(["git", "-C", str(path), "fast-import", "--quiet"], input="".join(stream).encode(), check=True)
    return path
