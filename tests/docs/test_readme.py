"""The README's programs run as printed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def hello(directory: Path) -> subprocess.Popen[str]:
    program = directory / "hello.py"
    program.write_text(BLOCKS[0])
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error", program],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_hello_world_bills_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    with hello(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "billing {'id': 1}\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=20)
    assert (process.returncode, out, error) == (0, "", "")


def test_hello_world_killed_and_restarted_loses_nothing(tmp_path: Path) -> None:
    with hello(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "billing {'id': 1}\n"
        process.kill()
    with hello(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "billing {'id': 1}\n"  # its own, or the first one again
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")


def test_the_handling_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    exec(compile(BLOCKS[1], "README.md", "exec"), module.__dict__)
    assert callable(module.serve)
