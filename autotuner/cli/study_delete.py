"""`autotune study delete`."""

import sys
from typing import Annotated

import typer

from autotuner.cli.options import Db, Json, Name


def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Delete a study: its trials and its folder."""
    from autotuner import api
    from autotuner.errors import UsageError
    from autotuner.report.json_lines import dump
    from autotuner.report.text import plural

    with api.load_study(name, db) as study:
        count = study.count()
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError(f"deleting study {name!r} needs a confirmation", "add --yes")
        typer.confirm(f"Delete study {name} with {plural(count, 'trial')} and its folder?", abort=True)
    api.delete(name, db=db)
    print(dump({"deleted": name, "trials": count}) if as_json else f"deleted {name}: {plural(count, 'trial')}")
