"""The README's programs run as printed."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace import Topic, connect
from tests.docs.pages import KAFKA

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


def test_the_kafka_example_works_until_it_is_stopped(kafka_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    for block in BLOCKS[1:3]:
        text = block.replace(KAFKA, kafka_address).replace('"orders"', '"readme.orders"')  # pages have the other one
        exec(compile(text, "README.md", "exec"), module.__dict__)
    handled: list[object] = []

    async def handle(order: dict[str, int]) -> None:
        handled.append(order)

    async def story() -> None:
        async with connect(f"kafka://{kafka_address}") as broker:
            serving = asyncio.create_task(module.serve_kafka())
            await Topic(broker, "readme.orders").send({"readme": 1}, key="readme")
            while {"readme": 1} not in handled:
                assert not serving.done(), serving
                await asyncio.sleep(0.05)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    module.handle = handle  # type: ignore[attr-defined]
    asyncio.run(asyncio.wait_for(story(), 30))
