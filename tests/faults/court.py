"""Court: hands stores to the judge, which sits in a process of its own."""

import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

FILES = tuple(name + suffix for name in ("streams.db", "consumers.db") for suffix in ("", "-wal", "-journal"))


class Court:
    """``with Court() as court: court.judge(directory, {sequence: body})`` gives what is wrong."""

    def __enter__(self):
        judge = Path(__file__).with_name("judge.py")
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(judge)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def judge(self, directory, acknowledged, unsynced=None, settled=()):
        case = {"directory": str(directory), "acknowledged": acknowledged, "unsynced": unsynced}
        case["settled"] = list(settled)
        return self.answer(case)

    def answer(self, case):
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def judge_copy(self, directory, acknowledged):
        """The same on a copy, so that the judge's recovery does not help the engine."""
        with copied(directory) as copy:
            return self.judge(copy, acknowledged)

    def contents(self, directory):
        """{sequence: body} of what can be read of the messages, on a copy."""
        with copied(directory) as copy:
            found = self.answer({"directory": copy})
        return {int(sequence): body for sequence, body in found.items()}


@contextmanager
def copied(directory):
    with tempfile.TemporaryDirectory(prefix="headrace-court-") as copy:
        for name in FILES:
            if (Path(directory) / name).exists():
                shutil.copyfile(Path(directory) / name, Path(copy) / name)
        yield copy
