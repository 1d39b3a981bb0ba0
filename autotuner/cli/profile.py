"""`autotune profile`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.exits import interrupted_is_one_line, say
from autotuner.cli.options import Db, Json
from autotuner.errors import UsageError

if TYPE_CHECKING:
    from autotuner.spec import StudySpec
    from autotuner.types import Config


File = Annotated[Path | None, typer.Argument(metavar="FILE", help="The study: a YAML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A parameter's value, as in batch_size=8; or a value of the file, as in workload.new_tokens=64.",
        show_default=False,
    ),
]
Best = Annotated[str | None, typer.Option(metavar="STUDY", help="What a finished study recommends, instead of a file.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o", "--out", metavar="DIR", help="Where to write. [default: studies/profiles/NAME-TIME]", show_default=False
    ),
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Steps that profilers look at.")]
OpenPage = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


def profile(
    file: File = None,
    settings: Settings = None,
    best: Best = None,
    out: Out = None,
    steps: Steps = 5,
    open_page: OpenPage = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show where the time of one configuration goes.

    Runs the baseline, or what --set says: a step without a profiler, then under torch.profiler, beside py-spy and, on
    a GPU, in nsys and ncu where they are installed. Writes a page, a Chrome trace and a speedscope file.

    If you look for nvprof: its successors are `nsys profile` for the timeline and `ncu` for counters of a kernel. This
    command runs both, and prints them ready to copy.
    """
    from autotuner import profiling
    from autotuner.report.json_lines import dump
    from autotuner.report.profile import profile_json, profile_summary
    from autotuner.report.terminal import show

    with interrupted_is_one_line("no profile was written", as_json):
        spec, config = _chosen(file, settings or (), best, db)
        folder = out or profiling.default_folder(spec)
        found = profiling.profile(spec, config, folder, steps=steps, listener=_ignore if as_json else say)
    if as_json:
        print(dump(profile_json(found), indent=2))
    else:
        show(profile_summary(found))
    if open_page:
        import webbrowser

        webbrowser.open(Path(found.files["page"]).as_uri())


def _ignore(stage: str) -> None:
    """With --json nobody is told what is being done."""


def _chosen(file: Path | None, settings: Sequence[str], best: str | None, db: str | None) -> "tuple[StudySpec, Config]":
    """The study and the configuration that the user means.

    Raises:
        UsageError: Neither or both of a file and a study, or a value that is none.
    """
    from autotuner import api, profiling
    from autotuner.spec import restore

    if (file is None) == (best is None):
        raise UsageError("give a study file, or --best STUDY", "autotune profile search_spaces/inference.yaml")
    if file is not None:
        overrides, values = profiling.split(file, settings)
        spec = api.read_spec(file, overrides)
        return spec, profiling.choose(spec, spec.baseline, values)
    with api.load_study(str(best), db) as study:
        spec = restore(study.spec())
        return spec, profiling.choose(spec, api.recommendation(study).config, settings)
