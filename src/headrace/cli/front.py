"""What stands before every command: --version, --timeout."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Annotated

import typer

from headrace.cli.opening import TIMEOUT
from headrace.cli.options import duration_of

__all__ = ["front"]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"headrace {version_of('headrace')}")
        raise typer.Exit


def front(
    *,
    version: Annotated[  # noqa: ARG001  (its callback has answered)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", envvar="HEADRACE_TIMEOUT", help="Longest wait for the broker; else 30s, for NATS 5s."
        ),
    ] = None,
) -> None:
    """Durable message streams, on a directory or a server."""
    TIMEOUT.set(duration_of(timeout, "--timeout"))
