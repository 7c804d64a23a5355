"""The command `headrace`: its commands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from headrace.cli.exits import ExitCode, exit_code_of, message_of_error

__all__ = ["build", "main"]

_NEEDED = ("typer", "rich", "click")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (`ExitCode`); what went wrong is one line on stderr."""
    logging.getLogger("headrace").addHandler(logging.NullHandler())  # a command says itself what went wrong
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show ends no command
    try:
        application = build()
    except KeyboardInterrupt:
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        return _fail(f"the command line needs {error.name}: pip install 'headrace[cli]'", ExitCode.FAILED)
    try:
        code = application(args=arguments, prog_name="headrace", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  (nothing may end in a traceback)
        return _ended(error)
    return code if isinstance(code, int) else ExitCode.DONE


def build() -> Any:
    """The typer application with all its commands. ``ModuleNotFoundError`` where the extra `cli` is not installed."""
    import typer

    from headrace.cli import bench, consumer, dead, demo, doctor, front, get, publish, stream, tail

    application = typer.Typer(
        name="headrace",
        help="Durable message streams, on a directory or a server.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback()(front.front)
    application.add_typer(stream.commands, name="stream", help="Streams: where messages are stored.")
    application.add_typer(consumer.commands, name="consumer", help="Consumers: durable positions in a stream.")
    application.add_typer(dead.commands, name="dead", help="Dead letters: what no handler could process.")
    application.command("pub")(publish.publish)
    application.command("tail")(tail.tail)
    application.command("get")(get.get)
    application.command("bench")(bench.bench)
    application.command("doctor")(doctor.doctor)
    application.command("demo")(demo.demo)
    return application


def _fill_closed_streams() -> None:
    """Where a standard stream is closed, nothing is printed; and no file of the store takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (until the process ends)


def _ended(error: BaseException) -> int:
    """Say what ended the command, in one line, and give the exit code."""
    import typer

    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        # whoever read our output has seen enough; nothing more may be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else ExitCode.FAILED
    if isinstance(error, typer.Abort):  # Ctrl-C or the end of input where something was asked
        return _fail("interrupted", ExitCode.INTERRUPTED)
    if hasattr(error, "format_message"):  # click's own, wherever this typer keeps them
        return _usage(error)
    if os.environ.get("HEADRACE_DEBUG"):
        raise error
    code = exit_code_of(error)
    return _fail(message_of_error(error), code)


def _usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # the help itself is what was asked for
        print(error.format_message().strip(), end="", file=sys.stderr)
        return ExitCode.USAGE
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return _fail(" ".join(error.format_message().split()) + hint, int(getattr(error, "exit_code", ExitCode.USAGE)))


def _fail(text: str, code: int) -> int:
    """One line on stderr; text of strangers in it is shown, not done."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    print(f"headrace: {shown}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
