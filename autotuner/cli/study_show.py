"""`autotune study show`."""

from typing import Annotated

import typer

from autotuner.cli.options import Db, Json, Name


def show_study(
    name: Name,
    trials: Annotated[int, typer.Option(min=0, metavar="N", help="How many of the best and of the last trials.")] = 5,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show a study: what it found, its best and its last trials."""
    from autotuner import records
    from autotuner.cli.portrait import paint
    from autotuner.report.json_lines import dump
    from autotuner.report.study import portrait_json, portrait_view
    from autotuner.report.terminal import show

    with records.load_study(name, db) as study:
        portrait = paint(study, trials)
    if as_json:
        print(dump(portrait_json(portrait), indent=2))
    else:
        show(portrait_view(portrait))
