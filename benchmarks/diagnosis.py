"""Is the diagnosis right? Workloads with known truth, judged like a classifier, beside other people's rules.

    python benchmarks/diagnosis.py [--only GROUP …] [--repeat N] [--scale X] [--device cpu|cuda] [--json OUT]

Each case is measured, diagnosed and put to the proof as a study does it; its truth comes from its construction and is
checked by measurements of its own. A case that somebody else's work disturbs is measured again after the others, three
times in all, and then left out, counted apart. Goals: at least 95 % right at the first place, none confirmed and wrong.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from labelled.cases import cases, scaled
from labelled.lab import ATTEMPTS, PATIENCE_S, Result, open_lab, run_cases
from labelled.scoring import accuracy, answered, confusion, other, raw
from results import describe_machine, publish

GOAL_RATIO = 0.95
OTHERS = {
    "strict": "torch-tb-profiler 0.4.3, as it is (on a CPU its three GPU rules cannot fire)",
    "generous": "torch-tb-profiler 0.4.3, read generously (the CPU in the place of the GPU)",
    "utilisation": "utilisation (a busy device computes, an idle one waits for input)",
}


def tell(result: Result) -> None:
    """A line as a case ends; more where it went wrong."""
    print(line(result), flush=True)
    if result.answer is not None and not result.right:
        print_miss(result)


def line(result: Result) -> str:
    """A case in one line."""
    if result.answer is None:
        return f"left out  {result.case.name:44} {result.skipped}"
    mark = "right    " if result.right else "WRONG, confirmed" if result.confidently_wrong else "wrong    "
    said = result.answer.binding + (" (confirmed)" if result.answer.confirmed else "")
    return f"{mark} {result.case.name:44} {said:30} {result.duration_s:4.1f} s"


def report(results: Sequence[Result]) -> None:
    """Confusion matrices: ours, and the others'."""
    counted = answered(results)
    left_out = len(results) - len(counted)
    print(f"\n{len(counted)} cases counted, {left_out} left out")
    print(f"\nautotune: {accuracy(results):.1%} right\n{confusion(results)}")
    for name, text in OTHERS.items():
        print(f"\n{text}: {accuracy(results, other(name)):.1%} right\n{confusion(results, other(name))}")


def print_miss(result: Result) -> None:
    """Why it went wrong: what was said, and on which evidence."""
    assert result.answer is not None
    print(f"     not {' or '.join(result.truth)}? {result.answer.sentence}")
    print("     " + ", ".join(f"{name} {value:.3g}" for name, value in result.answer.evidence.items()))
    for name, elasticity in result.answer.elasticities.items():
        print(f"     elasticity of {name}: {elasticity.value:.2f} [{elasticity.low:.2f}, {elasticity.high:.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="groups, or parts of names")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the operations' sizes: other cases with the same truth"
    )
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help="how often a disturbed case is measured")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds to wait for quiet cores, each time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(describe_machine())
    chosen = [
        case if options.scale == 1 else scaled(case, options.scale)
        for case in cases(options.device)
        if not options.only or any(word == case.group or word in case.name for word in options.only)
    ]
    began_s = time.perf_counter()
    with TemporaryDirectory() as folder, open_lab(Path(folder), options.device, options.patience) as lab:
        results = [result for _ in range(options.repeat) for result in run_cases(lab, chosen, options.attempts, tell)]
    report(results)
    print(f"{time.perf_counter() - began_s:.0f} s")
    right, wrong = accuracy(results), sum(result.confidently_wrong for result in results)
    goals = {
        f"right at the first place: {right:.1%} >= {GOAL_RATIO:.0%}": right >= GOAL_RATIO,
        f"confirmed and wrong: {wrong} = 0": wrong == 0,
    }
    known = lab.measured_ceilings[-1].values if lab.measured_ceilings else {}
    ceilings = {name: estimate.value for name, estimate in known.items()}
    print("ceilings: " + ", ".join(f"{name} {value:.3g}" for name, value in ceilings.items()))
    publish(
        options.json,
        {"scale": options.scale, "ceilings": ceilings, "cases": [raw(result) for result in results]},
        goals,
    )


if __name__ == "__main__":
    main()
