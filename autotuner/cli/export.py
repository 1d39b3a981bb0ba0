"""`autotune export`."""

from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.options import Db, Json
from autotuner.errors import UsageError


def export(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the study.", show_default=False)] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="TARGET", help="For whom; see --list.", show_default=False)
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("-o", "--directory", metavar="DIR", help="Where to. [default: the study's]", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also what is not BETTER; replace what exists.")] = False,
    list_targets: Annotated[bool, typer.Option("--list", help="List the targets.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write a study's recommendation for those who use it."""
    if list_targets:
        _list_targets(as_json)
        return
    if name is None or target is None:
        raise UsageError("export needs a study and a target", "autotune export NAME --to TARGET; see --list")
    from autotuner import api
    from autotuner.report.json_lines import dump

    path = api.export(name, target, directory, db=db, force=force)
    print(dump({"study": name, "target": target, "path": str(path)}) if as_json else path)


def _list_targets(as_json: bool) -> None:
    from autotuner import api
    from autotuner.report.json_lines import dump

    targets = dict(api.export_targets())
    if as_json:
        print(dump(targets, indent=2))
        return
    width = max(map(len, targets), default=0)
    for target, text in sorted(targets.items()):
        print(f"{target:{width}}  {text}".rstrip())
