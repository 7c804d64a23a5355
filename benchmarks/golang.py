"""nats.go, built from benchmarks/go by the machine's Go; each measurement is a process of its own."""

import json
import shutil
import subprocess
from pathlib import Path

from benchmarks.clients import KINDS, Sample

SOURCE = Path(__file__).with_name("go")


class NatsGo:
    """The same kinds as the Python clients, but for the seam, which is ours."""

    name = "nats.go"
    kinds = KINDS

    def __init__(self, program):
        self._program = program

    def measure(self, run):
        arguments = {
            "kind": run.kind, "url": run.url, "stream": run.stream, "consumer": run.consumer, "subject": run.subject,
            "count": run.count, "size": len(run.body), "window": run.window, "ca": run.certificate or "",
        }  # fmt: skip
        command = [str(self._program), *(f"-{name}={value}" for name, value in arguments.items())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"nats.go {run.kind}: {done.stderr.strip()}")
        return Sample(**json.loads(done.stdout))


def built(folder):
    """The client, or None where it cannot be built; said aloud."""
    if shutil.which("go") is None:
        print("SKIPPED: nats.go, no Go on this machine")
        return None
    program = folder / "nats-go"
    done = subprocess.run(
        ["go", "build", "-o", str(program), "."], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"SKIPPED: nats.go does not build: {done.stderr.strip()[-500:]}")
        return None
    return NatsGo(program)
