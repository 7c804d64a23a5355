"""pyrallel-consumer, the nearest peer on Kafka: it lives in its own environment, so each use of it is a process.

Imported in both environments, so nothing of headrace is imported here.
"""

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-pyrallel" / "bin" / "python"
READER, MEMBER = "benchmarks.pyrallel_reader", "benchmarks.pyrallel_member"
PATIENCE = 120


class UnfinishedError(Exception):
    """A client has not come to the end; the text says how far."""


def lacking():
    """Why it cannot be used here, or None."""
    if not PYTHON.exists():
        return f"{PYTHON.relative_to(ROOT)} is missing (make bench makes it)"
    done = subprocess.run([PYTHON, "-c", "import pyrallel_consumer"], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def read(run, *more):
    """How many it handled, wall and CPU seconds for them, by name; with the async engine under `key_hash`."""
    command = [PYTHON, "-m", READER, run.address, run.topic, run.group, str(run.count), *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise UnfinishedError(f"not even ended after {PATIENCE} s") from error
    if done.returncode:
        raise UnfinishedError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)
