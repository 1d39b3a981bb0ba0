"""Do we tune a training better than others do? Three trainings, five tuners, one run, replayed side by side.

    python benchmarks/training_peers.py [--cases a,b] [--only TOOL …] [--out OUT] [--venv DIR] [--rounds 5]

Against loadtune, Lightning's batch size finder, accelerate's find_executable_batch_size and pytorch-autotune, each in
an environment of its own that is made once, used as its documentation says and given the same plain PyTorch training
(`training_cases/`). The batch size is free for all; who tunes only that keeps the baseline's other settings. What each
chose is then replayed in fresh processes, in interleaved rounds of random order. A configuration that fails there is
infeasible, however fast. Goals for each case: ours is never infeasible, and at least as fast as the best peer's: its
median ratio is at least 0.97 and the interval does not lie below 1. The case `exhaustive` is measured against every
configuration of a space: at least 95 % of its best with at most 10 % of it.
"""

import argparse
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from results import conclude, describe_machine, write
from training_cases import NAMES, exhaustive, load_case
from training_cases.case import Case
from training_cases.race import Replays, failure, race, rates, ratio
from training_cases.tools import OURS, PEERS, PINS, Tool, peers_python, tune

GOAL_RATIO = 0.97  # two replays of one configuration differ by as much
OUT = Path(__file__).parent / "results" / "training_peers"
VENV = Path.home() / ".cache" / "autotune-benchmarks" / "training-peers"


def tell(text: str) -> None:
    print(text, flush=True)


def run_case(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, bool]]:
    """Tune, replay, print; everything measured, and the goals."""
    case = load_case(name)
    tell(f"\n{name}: {case.text}")
    case.dataset()  # made before anybody's time runs
    tools = [
        tool for tool in (OURS, *PEERS) if not options.only or any(tool.name.startswith(word) for word in options.only)
    ]
    found = {tool.name: run_tool(tool, name, options) for tool in tools}
    changed = {who: answer["changed"] for who, answer in found.items() if "changed" in answer}
    arms: dict[str, Mapping[str, Any]] = {"baseline": {}, **changed}
    replays = race(name, arms, options.rounds, options.seconds, tell)
    print_table(case, tools, found, replays)
    return {"text": case.text, "found": found, "replays": replays}, judge(name, replays)


def run_tool(tool: Tool, case: str, options: argparse.Namespace) -> dict[str, Any]:
    python = Path(sys.executable) if tool.ours else options.python
    answer = tune(tool, case, python, options.limit, options.set if tool.ours else ())
    tell(f"  {tool.name}: " + (answer["failed"] if "failed" in answer else f"{answer['seconds']:.0f} s"))
    return answer


def judge(name: str, replays: Replays) -> dict[str, bool]:
    """The goals of a case, with what was measured in their text."""
    if OURS.name not in replays:
        return {f"{name}: autotune found something": False}
    broken = failure(replays[OURS.name])
    if broken is not None:
        return {f"{name}: feasible ({broken})": False}
    goals = {f"{name}: feasible": True}
    names = {tool.name for tool in PEERS}
    rivals = [who for who, answers in replays.items() if who in names and failure(answers) is None]
    if rivals:
        best = max(rivals, key=lambda who: median(rates(replays[who])))
        middle, low, high = ratio(rates(replays[OURS.name]), rates(replays[best]))
        kept = middle >= GOAL_RATIO and high >= 1
        word = "faster than" if low > 1 else "SLOWER than" if high < 1 else "as fast as"
        text = f"{word} the best peer, {best}: {middle:.3f} [{low:.3f}, {high:.3f}], at least {GOAL_RATIO}"
        goals[f"{name}: {text}"] = kept
    else:
        goals[f"{name}: no peer was feasible: nothing to be compared with"] = False
    return goals


def print_table(case: Case, tools: list[Tool], found: Mapping[str, Any], replays: Replays) -> None:
    """A row a tool; speeds are those of the replays, beside what the tool itself claims."""
    head = ("", "trials", "seconds", "samples/s", "to baseline", "claimed")
    tell("\n" + "{:20} {:>6} {:>8} {:>10} {:>22} {:>8}".format(*head) + "  chose; cannot choose")
    tell(row("baseline", {}, replays, "", ""))
    for tool in tools:
        answer = found[tool.name]
        if "failed" in answer:
            tell(f"{tool.name:20} gave no answer: {answer['failed']}")
            continue
        chose = {key: value for key, value in answer["changed"].items() if value != case.baseline[key]}
        said = ", ".join(f"{key} {value}" for key, value in chose.items()) or "the baseline"
        tell(row(tool.name, answer, replays, said, tool.cannot))


def row(name: str, answer: Mapping[str, Any], replays: Replays, chose: str, cannot: str) -> str:
    start = f"{name:20} {answer.get('trials', ''):>6} {answer.get('seconds', 0):8.0f} "
    broken, base = failure(replays[name]), rates(replays["baseline"])
    if broken is not None:
        return f"{start}INFEASIBLE in replay {len(replays[name])}: {broken}  {chose}"
    mine = rates(replays[name])
    middle, low, high = ratio(mine, base) if len(base) == len(mine) else (0.0, 0.0, 0.0)
    claimed = answer.get("claimed_samples_per_s")
    numbers = (
        f"{median(mine):10.0f} {f'{middle:.2f} [{low:.2f}, {high:.2f}]':>22} {f'{claimed:.0f}' if claimed else '-':>8}"
    )
    return f"{start}{numbers}  {chose}" + (f"; {cannot}" if cannot else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join((*NAMES, "exhaustive")), help="separated by commas")
    parser.add_argument("--only", nargs="+", default=[], help="tools, or how their names begin")
    parser.add_argument("--out", type=Path, default=OUT, help="folder; a file a case")
    parser.add_argument("--venv", type=Path, default=VENV, help="where the peers are installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of steps a replay, after its warm-up")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a tool may take before it is ended")
    parser.add_argument("--set", nargs="+", default=[], help="over our study files, as budget.minutes=1")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or a tool at work would outlive us
    tell(describe_machine())
    options.python = peers_python(options.venv)
    tell("peers: " + ", ".join(f"{name} {pin}" for name, pin in PINS.items()))
    goals = dict[str, bool]()
    for name in options.cases.split(","):
        raw, kept = exhaustive.compare(options, tell) if name == "exhaustive" else run_case(name, options)
        write(options.out / f"{name}.json", {"peers": PINS, **raw}, kept)
        goals |= kept
    tell("")
    conclude(goals)


if __name__ == "__main__":
    main()
