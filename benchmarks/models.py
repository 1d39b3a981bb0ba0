"""How far the models of `autotuner/analyze` are from what really happens.

    python benchmarks/models.py [--only NAME ...] [--json OUT]

Every prediction was made without the measurement that it is held against: calibrated apart, or fitted on other sizes.
The models of memory and occupancy must be exact, or nearly; those of time must order configurations.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from model_checks import batch_slope, collectives, input_queue, memory, occupancy, roofline, zero
from model_checks.points import Point, largest_error, median_error
from results import describe_machine, publish

CHECKS = {
    "roofline": roofline.check,
    "memory": memory.check,
    "zero": zero.check,
    "batch_slope": batch_slope.check,
    "input_queue": input_queue.check,
    "collectives": collectives.check,
}
MEDIAN_GOALS: Mapping[str, float] = {
    "roofline": 0.4,  # a floor: steps at a roof come close to it, none is faster
    "KV cache": 0.0,
    "ZeRO": 0.01,
    "activations": 0.03,
    "memory line": 0.01,
    "batch slope": 0.15,
    "input queue": 0.05,
    "decoding queue": 0.25,
    "all-reduce": 0.15,
    "overlap": 0.25,
}


def check_occupancy(goals: dict[str, bool]) -> list[str]:
    """Every launch exactly; nothing is claimed where the header is missing."""
    include = occupancy.include_folder()
    if include is None:
        print("occupancy: no cuda_occupancy.h on this machine, not checked")
        return []
    launches = occupancy.random_launches(occupancy.LAUNCHES)
    found = occupancy.differences(launches, include)
    print(f"{'occupancy':14} {len(launches)} launches, {len(found)} differ from cuda_occupancy.h")
    goals[f"occupancy: all of {len(launches)} launches as cuda_occupancy.h, blocks and limits"] = not found
    return found


def report(points: list[Point], goals: dict[str, bool]) -> None:
    """A line a model: how many predictions, the median and the largest error, and where that was.

    What was disturbed by others every time is told apart, and counts for no goal where anything was not.
    """
    for model in dict.fromkeys(point.model for point in points):
        of_all = [point for point in points if point.model == model]
        own = [point for point in of_all if not point.disturbed] or of_all
        middle, worst = median_error(own), largest_error(own)
        quiet = f"{sum(not point.disturbed for point in of_all)} of {len(of_all)} undisturbed"
        print(f"{model:14} {quiet:24} median {middle:6.1%}  largest {worst.error_ratio:+7.1%}  ({worst.case})")
        if model in MEDIAN_GOALS:
            goals[f"{model}: median error {middle:.1%} <= {MEDIAN_GOALS[model]:.0%}"] = middle <= MEDIAN_GOALS[model]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*CHECKS, "occupancy"], default=[*CHECKS, "occupancy"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(describe_machine())
    points = [point for name, check in CHECKS.items() if name in options.only for point in check()]
    goals: dict[str, bool] = {}
    report(points, goals)
    differing = check_occupancy(goals) if "occupancy" in options.only else []
    samples = {"points": [{**asdict(point), "error_ratio": point.error_ratio} for point in points]}
    publish(options.json, {**samples, "occupancy_differences": differing}, goals)


if __name__ == "__main__":
    main()
