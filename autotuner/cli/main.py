"""The command line `autotune`. Imports typer and nothing heavy: `autotune --help` must answer at once."""

import signal
from typing import Annotated

import typer

from autotuner.cli.bench import bench
from autotuner.cli.daemon_run import run as run_daemon
from autotuner.cli.daemon_say import WORDS, saying
from autotuner.cli.daemon_show import history, status
from autotuner.cli.dashboard import dashboard
from autotuner.cli.doctor import doctor
from autotuner.cli.exits import Commands
from autotuner.cli.export import export
from autotuner.cli.gpu_record import record
from autotuner.cli.load import load
from autotuner.cli.profile import profile
from autotuner.cli.space_check import check
from autotuner.cli.space_schema import print_schema
from autotuner.cli.study_compare import compare
from autotuner.cli.study_delete import delete
from autotuner.cli.study_list import list_studies
from autotuner.cli.study_report import report
from autotuner.cli.study_resume import resume
from autotuner.cli.study_show import show_study
from autotuner.cli.study_start import start
from autotuner.cli.study_verify import verify


def _group(text: str, *, completion: bool = False) -> typer.Typer:
    return typer.Typer(
        cls=Commands,
        help=text,
        add_completion=completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = _group(
    "Find the configuration that is really faster: measure, diagnose, search, verify, hand over.", completion=True
)
study = _group("Run studies and look at them.")
space = _group("Check what a study may change.")
gpu = _group("Look at GPUs.")
daemon = _group("Keep a service tuned.")
app.add_typer(study, name="study")
app.add_typer(daemon, name="daemon")
app.add_typer(space, name="space")
app.add_typer(gpu, name="gpu")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"autotune {version('autotune-loop')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    _help_if_alone(context)


@study.callback()
@space.callback()
@gpu.callback()
@daemon.callback()
def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


study.command("start")(start)
study.command("resume")(resume)
study.command("verify")(verify)
study.command("list")(list_studies)
study.command("show")(show_study)
study.command("compare")(compare)
study.command("report")(report)
study.command("delete")(delete)
space.command("check")(check)
space.command("schema")(print_schema)
gpu.command("record")(record)
daemon.command("run")(run_daemon)
daemon.command("status")(status)
daemon.command("history")(history)
for word in WORDS:
    daemon.command(word)(saying(word))
app.command("export")(export)
app.command("bench")(bench)
app.command("profile")(profile)
app.command("doctor")(doctor)
app.command("load")(load)
app.command("dashboard")(dashboard)


def main() -> None:
    """The program `autotune`. Before a command has begun, Ctrl-C ends it at once and without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in a shell's background job
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    app()
