"""`autotune daemon status` and `history`."""

from typing import Annotated, Any

import typer

from autotuner.cli.options import Db, Json

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="As its file names it.", show_default=False)]


def status(service: Service, db: Db = None, as_json: Json = False) -> None:
    """Show what a service is at: what serves, what is tried, and why."""
    from autotuner.daemon.telling import facts_of
    from autotuner.records import open_record
    from autotuner.report.json_lines import dump

    with open_record(db) as record:
        facts = facts_of(record, service)
    if as_json:
        print(dump(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:12} {value}")


def history(
    service: Service,
    last: Annotated[int, typer.Option("--last", min=1, help="How many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Every window too.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show what was decided for a service, when and why."""
    from autotuner.daemon.telling import entries_of, sentence_of
    from autotuner.records import open_record
    from autotuner.report.json_lines import dump

    with open_record(db) as record:
        entries = entries_of(record, service, last, everything=everything)
    if as_json:
        rows: list[dict[str, Any]] = [
            {"number": one.number, "at": one.at, "kind": one.kind, "token": one.token, **one.payload} for one in entries
        ]
        print(dump(rows, indent=2))
        return
    for entry in entries:
        print(f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.kind:10} {sentence_of(entry)}")
