"""`autotune export`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autotuner.cli.exits import say
from autotuner.cli.options import Db, Json, study_names, target_names
from autotuner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autotuner.exporters.bundle import Bundle
    from autotuner.exporting import Checked


Chosen = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Name of the study.", show_default=False, autocompletion=study_names),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="TARGET", help="For whom; see --list.", show_default=False, autocompletion=target_names
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        "-o", "--directory", metavar="DIR", help="The folder to make. [default: in the study's]", show_default=False
    ),
]
Hardware = Annotated[
    str, typer.Option(help="What it will run on: refuse what was proven on another.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="Of the target; see --list.", show_default=False),
]


def export(
    name: Chosen = None,
    target: Target = None,
    directory: Directory = None,
    force: Annotated[bool, typer.Option("--force", help="Also what is not BETTER; replace what exists.")] = False,
    hardware: Hardware = "",
    settings: Settings = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; let the target's own code read it.")] = False,
    list_targets: Annotated[bool, typer.Option("--list", help="List the targets.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write a study's recommendation for those who use it.

    A folder: the target's files, evidence.json with the proof, and in rollback/ the files of what was run before. With
    --check it ends with 1 when the target's own code refuses the files, and with 3 when that is not installed.
    """
    if list_targets:
        _list_targets(as_json)
        return
    if name is None or target is None:
        raise UsageError("export needs a study and a target", "autotune export NAME --to TARGET; see --list")
    from autotuner import exporting

    if check:
        drawn, found = exporting.check_export(
            name, target, db=db, force=force, hardware=hardware, settings=settings or []
        )
        _end(drawn, found, as_json=as_json)
    path, bundle = exporting.export(
        name, target, directory, db=db, force=force, hardware=hardware, settings=settings or []
    )
    _tell(name, target, path, bundle, as_json)


def _tell(name: str, target: str, path: Path, bundle: "Bundle", as_json: bool) -> None:
    """Where it is on stdout; what a person should know besides on stderr."""
    from autotuner.exporters.bundle import ways_to_use
    from autotuner.report.json_lines import dump

    if as_json:
        written = {"study": name, "target": target, "path": str(path), "files": sorted(bundle.files)}
        print(dump({**written, **_missing(bundle), "use": bundle.use.replace("{bundle}", str(path))}))
        return
    print(path)
    for reason in bundle.forced:
        say(f"FORCED: {reason}")
    _say_missing(bundle)
    say("use:")
    for way in ways_to_use(bundle.use, str(path)):
        say(f"  {way}")


def _end(bundle: "Bundle", found: "Sequence[Checked]", *, as_json: bool) -> NoReturn:
    """Print what the checks said, and leave with it."""
    from autotuner.report.json_lines import dump

    if as_json:
        checks = [{"name": check.name, "passed": check.passed, "text": check.text} for check in found]
        print(dump({"files": sorted(bundle.files), **_missing(bundle), "checks": checks}, indent=2))
    else:
        for check in found:
            said = {True: "passed", False: "FAILED", None: "not checked"}[check.passed]
            print(f"{said}: {check.name}{': ' if check.text else ''}{check.text}")
        if not found:
            print("nothing of the target's own reads these files; they passed our own checks")
        _say_missing(bundle)
    failed, missing = any(check.passed is False for check in found), any(check.passed is None for check in found)
    raise typer.Exit(1 if failed else 3 if missing else 0)


def _missing(bundle: "Bundle") -> dict[str, dict[str, str]]:
    """What the files do not say: parameters, and what the study file fixes."""
    return {"left_out": dict(bundle.left_out), "withheld": dict(bundle.withheld)}


def _say_missing(bundle: "Bundle") -> None:
    for name, why in [*bundle.left_out.items(), *bundle.withheld.items()]:
        say(f"left out: {name}: {why}")


def _list_targets(as_json: bool) -> None:
    from autotuner import exporting
    from autotuner.report.json_lines import dump

    targets: dict[str, dict[str, Any]] = {
        name: {
            "writes": (kind.__doc__ or "").strip().splitlines()[0],
            "for": kind.target_version,
            "needs": kind.needs,
            "options": {
                option: field.description or "" for option, field in kind.model_fields.items() if option != "kind"
            },
        }
        for name, kind in exporting.export_targets().items()
    }
    if as_json:
        print(dump(targets, indent=2))
        return
    for name, about in targets.items():
        sys.stdout.write(f"{name}: {about['writes']}\n  for {about['for']}; needs {about['needs']}\n")
        for option, text in about["options"].items():
            sys.stdout.write(f"  --set {option}=  {text}\n")
