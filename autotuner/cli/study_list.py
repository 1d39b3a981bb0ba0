"""`autotune study list`."""

from autotuner.cli.options import Db, Json


def list_studies(db: Db = None, as_json: Json = False) -> None:
    """List the studies of a record."""
    from autotuner import records
    from autotuner.report.json_lines import dump
    from autotuner.report.overview import overview_table
    from autotuner.report.terminal import show

    with records.open_record(db) as record:
        rows = record.overview()
    if as_json:
        print(dump(rows, indent=2))
    else:
        show(overview_table(rows))
