"""`autotune study compare`."""

from typing import Annotated

import typer

from autotuner.cli.options import Db, Json


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a study.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of another.", show_default=False)],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Compare two studies."""
    from autotuner import records
    from autotuner.cli.portrait import paint
    from autotuner.report.json_lines import dump
    from autotuner.report.study import compare_ground, compare_table, portrait_json
    from autotuner.report.terminal import show

    with records.load_study(first, db) as study:
        left = paint(study, 1)
    with records.load_study(second, db) as study:
        right = paint(study, 1)
    if as_json:
        pair = {"studies": [portrait_json(left), portrait_json(right)], "notes": compare_ground(left, right)}
        print(dump(pair, indent=2))
    else:
        show(compare_table(left, right))
