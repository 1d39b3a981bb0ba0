"""`autotune doctor`."""

from enum import StrEnum
from typing import Annotated

import typer

from autotuner.cli.exits import interrupted_is_one_line, say
from autotuner.cli.options import Db, Json


class Device(StrEnum):
    """What is measured."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def doctor(
    device: Annotated[Device, typer.Option(help="What to measure; auto takes a GPU if there is one.")] = Device.AUTO,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="Everything, in about 20 s, or what a diagnosis needs, in 6.")
    ] = True,
    again: Annotated[bool, typer.Option("--again", help="Measure although the record has it.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Say what this machine can do at most, and what is wrong with it.

    Ends with 0 when it can be measured on, whatever could be better; with 3 when it cannot, 130 when interrupted.
    """
    from autotuner.doctor import examine
    from autotuner.report.doctor import examination_json, examination_view
    from autotuner.report.json_lines import dump
    from autotuner.report.terminal import show

    chosen = None if device is Device.AUTO else device.value
    with interrupted_is_one_line("nothing was kept", as_json):
        found = examine(chosen, db, quick=not full, again=again, note=say)
    if as_json:
        print(dump(examination_json(found), indent=2))
    else:
        show(examination_view(found))
    raise typer.Exit(0 if found.can_measure else 3)
