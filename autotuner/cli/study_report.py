"""`autotune study report`."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.options import Db, Json, Name


def report(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to. [default: in the study's folder]",
                                  show_default=False),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write a study as one HTML page that needs no network."""
    from autotuner import records, story
    from autotuner.report.json_lines import dump
    from autotuner.report.study_page import page, write_page

    with records.open_record(db) as record:
        path = output or record.folder(name) / "report.html"
        write_page(page(story.tell(record, name)), path)
    print(dump({"study": name, "path": str(path)}) if as_json else path)
    if show:
        webbrowser.open(path.resolve().as_uri())
