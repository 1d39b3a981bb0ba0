"""`autotune study show`."""

from typing import Annotated

import typer

from autotuner.cli.options import Db, Json, Name


def show_study(
    name: Name,
    trials: Annotated[int, typer.Option(min=0, metavar="N", help="How many of the best and of the last trials.")] = 5,
    why: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only say where trial N came from.", show_default=False)
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show a study: what it found, its best and its last trials."""
    if why is not None:
        _explain(name, why, db, as_json)
        return
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


def _explain(name: str, number: int, db: str | None, as_json: bool) -> None:
    from autotuner import records
    from autotuner.reasons import reason_of
    from autotuner.report.json_lines import dump
    from autotuner.report.text import changes, describe

    with records.load_study(name, db) as study:
        found = reason_of(study, number)
    if as_json:
        print(dump({"trial": number, "origin": found.origin, "config": found.config, "reason": found.text}, indent=2))
    else:
        print(f"trial {number}, {describe(changes(found.config, found.baseline))}: {found.text}.")
