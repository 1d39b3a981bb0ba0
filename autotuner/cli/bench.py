"""`autotune bench`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.exits import interrupted_is_one_line
from autotuner.cli.options import Db, Json, Set
from autotuner.errors import MachineError, UsageError

if TYPE_CHECKING:
    from autotuner.events import Listener
    from autotuner.types import BenchReport

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study: a YAML file.", show_default=False)]
Base = Annotated[
    str | None,
    typer.Option(
        metavar="REV", help="Compare with this git revision, side by side. [default: the history]", show_default=False
    ),
]
Margin = Annotated[float, typer.Option(min=0.001, max=0.9, help="Differences up to it are none: 0.05 is 5 %.")]
Minutes = Annotated[float, typer.Option(min=0.01, max=1440, help="For the measuring.")]
Branch = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whose history this is. [default: the branch of the file]", show_default=False),
]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML here.", show_default=False)]
Markdown = Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown here.", show_default=False)]
Strict = Annotated[bool, typer.Option("--strict", help="Fail as well when nothing could be told.")]
History = Annotated[bool, typer.Option("--history", help="Show the history and the forecast; measure nothing.")]


def bench(
    file: File,
    base: Base = None,
    overrides: Set = None,
    margin: Margin = 0.05,
    minutes: Minutes = 5.0,
    branch: Branch = None,
    strict: Strict = False,
    history: History = False,
    junit: Junit = None,
    markdown: Markdown = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Measure what a file runs today, and fail when it got worse: for CI.

    Ends with 0, with 1 for a proven regression or when nothing could be measured, 2 for a mistake in the file or the
    command, 3 when the machine cannot, 130 when interrupted (nothing is appended then).
    """
    _check(history, base, (junit, markdown))
    with interrupted_is_one_line("nothing was appended", as_json):
        from autotuner import bench as run

        order = run.Order(file, tuple(overrides or ()), base, margin, minutes, branch, db)
        report = run.history(order) if history else run.bench(order, _listener(as_json))
    _print(report, as_json)
    if report.measured and report.run is not None:
        from autotuner.report.bench_files import fails

        _write(report, junit, markdown, strict)
        raise typer.Exit(1 if fails(report.run, strict) else 0)


def _check(history: bool, base: str | None, files: tuple[Path | None, ...]) -> None:
    """What could be known before minutes are spent.

    Raises:
        UsageError: Options that do not go together, or a file in a folder that is not there.
    """
    if history and (base or any(files)):
        raise UsageError(
            "--history measures nothing, so that it has no --base, --junit or --markdown", "leave them out"
        )
    for path in files:
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} for {path.name}", "make it first")


def _listener(as_json: bool) -> "Listener":
    """Progress goes to stderr, so that stdout holds the result alone; it falls silent when nobody reads it."""
    from autotuner.events import Event, ignore
    from autotuner.report.json_lines import write_json_lines
    from autotuner.report.lines import write_lines

    current = write_json_lines(sys.stderr) if as_json else write_lines(sys.stderr)

    def listen(event: Event) -> None:
        nonlocal current
        try:
            current(event)
        except OSError:
            current = ignore

    return listen


def _print(report: "BenchReport", as_json: bool) -> None:
    from autotuner.report.bench import bench_json, bench_summary, history_table
    from autotuner.report.json_lines import dump
    from autotuner.report.terminal import show

    terminal = sys.stdout.isatty()
    if as_json:
        print(dump(bench_json(report), indent=2))
    else:
        show(bench_summary(report, terminal) if report.measured else history_table(report, terminal))


def _write(report: "BenchReport", junit: Path | None, markdown: Path | None, strict: bool) -> None:
    from autotuner.report import bench_files

    try:
        if junit is not None:
            junit.write_text(bench_files.junit(report, strict), encoding="utf-8")
        if markdown is not None:
            markdown.write_text(bench_files.markdown(report), encoding="utf-8")
    except OSError as error:
        raise MachineError(
            f"{error.filename} cannot be written: {error.strerror}", "the run is in the record"
        ) from None
