"""One configuration, trained in this fresh process: `python -m training_cases.replay CASE CONFIG [--seconds S]`.

Prints one JSON line: samples and seconds of every step after the warm-up, or why it failed. Where shapes vary at
least a whole epoch is measured: whoever cannot hold the largest batch fails here.
"""

import argparse
import json
import time
from collections.abc import Iterator

from training_cases import load_case
from training_cases.case import Case, train

WARM_UP_S, WARM_UP_STEPS = 1.0, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("config", help="JSON; what it lacks is the baseline's")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    case = load_case(options.case)
    steps = train(case, {**case.baseline, **json.loads(options.config)})
    try:
        found = measure(case, steps, options.seconds)
    except (RuntimeError, MemoryError) as error:  # what torch raises when memory ends, here or in a loader's worker
        print(json.dumps({"failed": reason(error), "message": str(error)[:500]}))
        return
    seconds, samples = sum(duration for _, duration in found), sum(count for count, _ in found)
    print(json.dumps({"samples_per_s": samples / seconds, "steps": found}))


def reason(error: Exception) -> str:
    """In short."""
    text = str(error).strip()
    short = isinstance(error, MemoryError) or "can't allocate memory" in text or "Cannot allocate memory" in text
    return "out of memory" if short else f"{type(error).__name__}: {text.splitlines()[-1][:200]}"


def measure(case: Case, steps: Iterator[dict[str, float]], least_s: float) -> list[tuple[int, float]]:
    """Samples and seconds of each step."""
    epoch = len(case.dataset()) if case.shapes_vary else 0  # type: ignore[arg-type]
    next(steps)  # compiles, starts workers
    warm = spend(steps, WARM_UP_S, 0)
    while len(warm) < WARM_UP_STEPS:
        warm += spend(steps, 0, 1)
    return spend(steps, least_s, epoch)


def spend(steps: Iterator[dict[str, float]], least_s: float, least_samples: int) -> list[tuple[int, float]]:
    """Train until both are reached."""
    found: list[tuple[int, float]] = []
    spent_s, samples = 0.0, 0
    while spent_s < least_s or samples < least_samples:
        began_s = time.perf_counter()
        count = int(next(steps)["samples"])
        duration_s = time.perf_counter() - began_s
        found.append((count, duration_s))
        spent_s, samples = spent_s + duration_s, samples + count
    return found


if __name__ == "__main__":
    main()
