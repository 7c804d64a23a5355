"""Apache Kafka's jars: fetched once by Maven, checked against ``jars.sha256``, found again by the servers."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from headrace.core.errors import ConfigError

__all__ = ["VERSION", "find_java", "find_libs", "install"]

VERSION = "4.1.0"
"""Of Apache Kafka; ``pom.xml`` and ``jars.sha256`` beside this file belong to it."""

_HERE = Path(__file__).parent
_NAME = f"kafka-{VERSION}"
_PATIENCE = 600.0
_COPY = ("dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs")


def find_java() -> str:
    """The path of the program ``java``, the first on PATH. ``ConfigError`` without one."""
    found = shutil.which("java")
    if found is None:
        raise ConfigError(
            "no java here: Kafka needs 17 or newer on PATH (Debian: apt-get install openjdk-17-jre-headless)"
        )
    return found


def find_libs() -> Path:
    """The folder with the jars: ``.servers/kafka-4.1.0/libs`` here or above, else in the user's cache.

    ``ConfigError`` if they are in neither. Looks at names alone: contents were checked when they were installed.
    """
    wanted = _wanted()
    for folder in (*(place / ".servers" for place in (Path.cwd(), *Path.cwd().parents)), _cache()):
        libs = folder / _NAME / "libs"
        if all((libs / name).is_file() for name in wanted):
            return libs
    raise ConfigError(f"no Apache Kafka {VERSION} here: python -m headrace.testing.kafka (needs mvn, once)")


def install(folder: Path | None = None) -> Path:
    """Have the jars in ``folder/libs`` (by default in the user's cache) and return that path.

    Takes half a minute and a network the first time. ``ConfigError`` without the program ``mvn``, or if it fails, or if
    a jar is not the one that ``jars.sha256`` lists.
    """
    folder = folder or _cache() / _NAME
    libs = folder / "libs"
    if _wrong(libs):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
            _put(_download(Path(new)), libs)
    return libs


def _cache() -> Path:
    return Path.home() / ".cache" / "headrace"


def _wanted() -> Mapping[str, str]:
    """Name of each jar -> its SHA-256."""
    lines = (_HERE / "jars.sha256").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def _wrong(libs: Path) -> list[str]:
    """What is missing from this folder, or not as listed."""
    return [name for name, digest in _wanted().items() if not _is_as_listed(libs / name, digest)]


def _is_as_listed(jar: Path, digest: str) -> bool:
    if not jar.is_file():
        return False
    with jar.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == digest


def _download(folder: Path) -> Path:
    program = shutil.which("mvn")
    if program is None:
        raise ConfigError("no mvn here to fetch Kafka's jars: put Apache Maven on PATH (Debian: apt-get install maven)")
    shutil.copy(_HERE / "pom.xml", folder)
    command = [program, "-q", "-B", *_COPY]
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=_PATIENCE, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{' '.join(command)} has not ended within {_PATIENCE:g} s") from error
    if done.returncode:
        raise ConfigError(f"{' '.join(command)} failed:\n{done.stdout[-2_000:]}")
    if wrong := _wrong(folder / "libs"):
        raise ConfigError(f"fetched, and not as jars.sha256 lists it: {', '.join(wrong)}")
    return folder / "libs"


def _put(new: Path, libs: Path) -> None:
    """In one rename; where another process was faster, what it put there stays."""
    if libs.exists() and _wrong(libs):
        libs.rename(new.with_name("old"))  # goes with the temporary folder
    with contextlib.suppress(OSError):
        new.rename(libs)
    if wrong := _wrong(libs):
        raise ConfigError(f"{libs} cannot be written, or something else writes there: {', '.join(wrong)}")
