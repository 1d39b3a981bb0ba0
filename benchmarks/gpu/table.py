"""The short tables that the scripts of this folder print last.

`table.py tests JUNIT`, `table.py studies JSON…`, `table.py ceilings JSON…`.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any


def tests(path: Path) -> None:
    """One line a test: how it ended and how long it took."""
    ended = {"failure": "FAILED", "error": "ERROR", "skipped": "skipped"}
    for case in ElementTree.parse(path).iter("testcase"):
        outcome = next((ended[child.tag] for child in case if child.tag in ended), "passed")
        print(f"{outcome:8} {float(case.get('time', 0)):7.1f} s  {case.get('name')}")


def studies(paths: list[Path]) -> None:
    """One line a study: verdict, gain with its interval, and what the winner does."""
    print(f"{'study':14} {'verdict':10} {'gain':>7} {'95 %':>16} {'requests/s':>11} {'mean latency':>13}  winner")
    for path in paths:
        found = json.loads(path.read_text() or "{}")
        if "verdict" not in found:
            print(f"{path.stem:14} no result: see {path.with_suffix('.log').name}")
            continue
        metrics = found["metrics"]["candidate"]
        changed = {
            name: value for name, value in (found["candidate"] or {}).items() if value != found["baseline"][name]
        }
        rate, latency_s = metrics.get("throughput_requests_per_s"), metrics.get("latency_mean_s")
        print(
            f"{found['study']:14} {found['verdict']:10} {number(found['gain'], '.2f'):>7} "
            f"{interval(found['gain_interval']):>16} {number(rate, '.1f'):>11} {number(latency_s, '.3f'):>11} s  "
            f"{changed}"
        )
        print(f"{'':14} {found['reason']}")
        print(f"{'':14} {found['trials']} trials, failures {found['failures']}, limits broken {broken(found)}")


SEEN = {  # on an H200, by hand: what a ceiling should come near to
    "copy_bytes_per_s": "4.3e12",
    "matmul_bfloat16_flops_per_s": "7.7e14 to 8.9e14",
}


def ceilings(paths: list[Path]) -> None:
    """One line a ceiling: its value in every run, SI units, and what was seen on an H200."""
    runs = [json.loads(path.read_text() or "{}") for path in paths]
    names = list(dict.fromkeys(name for run in runs for name in run.get("ceilings", {})))
    print(f"{'ceiling':34} {'unit':8} {'seen on an H200':18} " + " ".join(f"{path.stem:>12}" for path in paths))
    for name in names:
        found = [run.get("ceilings", {}).get(name) for run in runs]
        unit = next(each["unit"] for each in found if each)
        values = [f"{each['value']:.3g}{'*' if each['disturbed'] else ''}" if each else "-" for each in found]
        print(f"{name:34} {unit:8} {SEEN.get(name, ''):18} " + " ".join(f"{value:>12}" for value in values))
    for path, run in zip(paths, runs, strict=True):
        told = [each["sentence"] for each in run.get("findings", [])]
        for note in [*run.get("notes", ["no result: see the log"]), *told]:
            print(f"{path.stem}: {note}")


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def interval(bounds: list[float | None] | None) -> str:
    """Both ends; an open one is a dash."""
    return " to ".join(number(bound, ".2f") for bound in bounds) if bounds else "-"


def broken(found: dict[str, Any]) -> list[str]:
    """The limits that the candidate does not keep."""
    return [limit for limit, excess in found["violations"].items() if excess is None or excess > 0]


if __name__ == "__main__":
    what, *names = sys.argv[1:]
    if what == "tests":
        tests(Path(names[0]))
    else:
        {"studies": studies, "ceilings": ceilings}[what]([Path(name) for name in names])
