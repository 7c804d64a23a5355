"""`import headrace` loads no driver: each is imported where it is used, and only then (DESIGN 13)."""

import subprocess
import sys

DRIVERS = {
    "aiobotocore", "apsw", "asyncmy", "asyncpg", "confluent_kafka", "cryptography", "jinja2", "lz4", "nats",
    "opentelemetry", "psycopg", "pydantic", "rich", "starlette", "typer", "uvicorn", "zstandard",
}  # fmt: skip


def test_importing_headrace_loads_no_driver():
    script = "import sys, headrace; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert DRIVERS.isdisjoint(loaded := set(done.stdout.split())), f"loaded: {sorted(DRIVERS & loaded)}"
