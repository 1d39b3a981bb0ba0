"""`autotune space check`."""

from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.options import Json, Set


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study: a YAML file.", show_default=False)],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Check a study file without running anything, and say what it allows."""
    from autotuner import api
    from autotuner.report.json_lines import dump
    from autotuner.report.space import space_table
    from autotuner.report.terminal import show

    space = api.check(file, overrides or ())
    if as_json:
        print(dump(space, indent=2))
    else:
        show(space_table(space))
