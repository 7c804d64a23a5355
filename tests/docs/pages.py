"""The pages of the documentation, and how their blocks run.

All blocks of a page run in order, in one empty directory:

- ``python``: run at once, all of a page in one module; one that begins with ``# name.py`` becomes that file instead.
- ``text`` right behind a ``python`` block: what that block printed.
- ``console``: ``$ command`` lines (``> `` goes on), each with what it prints; ``^C`` is a Ctrl-C once all above it
  was printed.

``…`` stands for any text, on a line of its own for any lines. Other blocks are not run.

Where a page says ``127.0.0.1:9092`` a real Kafka is meant, and the test's own is put there.
"""

import contextlib
import io
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "decisions" not in page.parts)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([\w.]+\.\w+)\n")
_SECONDS = 50
KAFKA = "127.0.0.1:9092"
"""The Kafka of the pages."""


@dataclass
class Block:
    kind: str
    text: str
    line: int


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text[: found.start()].count("\n") + 2) for found in _BLOCK.finditer(text)]


def needs_kafka(page):
    return any(KAFKA in block.text or "testing.kafka" in block.text for block in blocks(page))


def run_page(page, directory, kinds=("python", "console"), kafka=KAFKA):
    """Run all blocks of `page`, with this address for Kafka's; how many ran."""
    module = ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    sys.modules[module.__name__] = module
    printed, count = "", 0
    log = logging.getLogger("headrace.worker")
    disabled = log.disabled  # a page may switch it off, in its own program
    try:
        for block in blocks(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            block.text = block.text.replace(KAFKA, kafka)
            if block.kind == "text" and printed:
                check(block.text, printed, where)
            if block.kind not in kinds:
                continue
            count += 1
            printed = run_python(block, module, directory, page) if block.kind == "python" else ""
            if block.kind == "console":
                run_console(block.text, directory, where)
    finally:
        log.disabled = disabled
        del sys.modules[module.__name__]
    return count


def run_python(block, module, directory, page):
    if named := _FILE.match(block.text):
        (directory / named[1]).write_text(block.text, encoding="utf-8")
        return ""
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.chdir(directory):
        exec(code, module.__dict__)
    return out.getvalue()


def run_console(text, directory, where):
    for command, expected in commands(text):
        if "^C\n" in expected:
            out = run_until_ctrl_c(command, expected, directory, where)
        else:
            process = subprocess.run(command, shell=True, cwd=directory, check=False, timeout=_SECONDS, **_channels())
            out = process.stdout
        check(expected.replace("^C\n", ""), out, f"{where}: {command}")


def commands(text):
    found = []
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append([line[2:].strip(), ""])
        elif line.startswith("> ") and not found[-1][1]:
            found[-1][0] += "\n" + line[2:].rstrip("\n")
        else:
            found[-1][1] += line
    return found


def run_until_ctrl_c(command, expected, directory, where):
    before = expected.partition("^C\n")[0]
    with subprocess.Popen(shlex.split(command), cwd=directory, **_channels()) as process:
        out = ""
        while not matches(before, out):
            line = process.stdout.readline()
            assert line, f"{where}: {command} ended before its Ctrl-C, after {out!r}"
            out += line
        process.send_signal(signal.SIGINT)
        return out + process.communicate(timeout=_SECONDS)[0]


def _channels():
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment |= {"PATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYTHONWARNINGS": "error"}
    return {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}


def check(expected, out, where):
    assert matches(expected, out), f"{where} printed\n{out}\nand the page says\n{expected}"


def matches(expected, out):
    pattern = ""
    for line in expected.splitlines():
        pattern += r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.rstrip().split("…"))) + "\n"
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in out.splitlines())) is not None
