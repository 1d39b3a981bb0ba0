"""`autotune daemon status` and `history`."""

from typing import Annotated

import typer

from autotuner.cli.options import Db, Json

Service = Annotated[
    str | None,
    typer.Argument(
        metavar="SERVICE", help="As its file names it; may be left out where there is one.", show_default=False
    ),
]


def status(service: Service = None, db: Db = None, as_json: Json = False) -> None:
    """Show what a service is at: what serves, what is tried, and why."""
    from autotuner.records import open_record
    from autotuner.report.json_lines import dump
    from autotuner.report.text import one_line
    from autotuner.telling import facts_of, named

    with open_record(db) as record:
        facts = facts_of(record, named(record, service))
    if as_json:
        print(dump(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:12} {one_line(str(value))}")


def history(
    service: Service = None,
    last: Annotated[int, typer.Option("--last", min=1, help="How many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Every window too.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show what was decided for a service, when and why."""
    from autotuner.records import open_record
    from autotuner.report.json_lines import dump
    from autotuner.report.text import one_line
    from autotuner.telling import entries_of, named, rows_of, sentence_of

    with open_record(db) as record:
        entries = entries_of(record, named(record, service), last, everything=everything)
    if as_json:
        print(dump(rows_of(entries), indent=2))
        return
    for entry in entries:
        print(f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.kind:10} {one_line(sentence_of(entry))}")
