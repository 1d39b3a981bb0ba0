"""How a command ends: every error becomes one line and an exit code here, and nowhere else."""

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from autotuner.cli.interruption import insistent, interruptible
from autotuner.errors import AutotuneError

# typer carries click inside since 0.26 and exports only one of its usage errors: the class above that is all of them
_WrongUsage: type[Exception] = typer.BadParameter.__mro__[1]


class Commands(TyperGroup):
    """The root of the commands; the one door through which their errors leave."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **options: Any) -> NoReturn:
        """Run a command and leave with its exit code."""
        given = sys.argv[1:] if args is None else list(args)
        open_missing_streams()
        make_printable()
        try:
            with insistent(), interruptible():
                code = super().main(given, **{**options, "prog_name": "autotune", "standalone_mode": False})
            sys.stdout.flush()
        except AutotuneError as error:
            code = report_error(error.message, error.hint, error.exit_code, "--json" in given)
        except KeyboardInterrupt:
            code = report_error("interrupted", "", 130, "--json" in given)
        except typer.Abort:
            code = report_error("aborted", "", 1, "--json" in given)
        except BrokenPipeError:
            code = silence()
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            silence()
            code = report_error(f"the output cannot be written: {error.strerror}", "free some space", 3, False)
        except _WrongUsage as error:
            code = report_error(*explain_usage(error), "--json" in given)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # the same class, by version
        """In help, groups come before single commands."""
        return sorted(self.commands, key=lambda name: not isinstance(self.commands[name], TyperGroup))


@contextmanager
def interrupted_is_one_line(what: str, as_json: bool) -> Iterator[None]:
    """End with 130 and "interrupted: `what`" when somebody interrupts.

    Raises:
        typer.Exit: Somebody did.
    """
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        raise typer.Exit(report_error(f"interrupted: {what}", "", 130, as_json)) from None


def open_missing_streams() -> None:
    """Let a caller that closed stdout or stderr have silence: their numbers must not become a database's."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123 - for good


def make_printable() -> None:
    """Let a terminal that cannot print × show a question mark instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def explain_usage(error: Any) -> tuple[str, str, int]:
    """Message, hint and exit code of a wrong command line."""
    message = str(error.format_message()).rstrip(".")
    where = error.ctx.command_path if error.ctx else "autotune"
    return message[:1].lower() + message[1:], f"see {where} --help", error.exit_code


def report_error(message: str, hint: str, exit_code: int, as_json: bool) -> int:
    """Say what is wrong in one line on stderr, with `as_json` also as one object on stdout; return `exit_code`."""
    say(" ".join(f"error: {message}{f' — {hint}' if hint else ''}".split()))
    if as_json:
        try:
            print(json.dumps({"error": message, "hint": hint, "exit_code": exit_code}, ensure_ascii=False), flush=True)
        except OSError:
            silence()
    return exit_code


def say(line: str) -> None:
    """Write a line to stderr, if anybody reads it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO | None = None) -> int:
    """The reader of `stream` (stdout) has gone: write the rest nowhere, also at the interpreter's own end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (stream or sys.stdout).fileno())
    os.close(nowhere)
    return 1
