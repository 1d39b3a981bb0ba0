"""The causal probe: the same step with less demand for one resource, side by side with the step as it is."""

import math
import time
from collections.abc import Sequence

from autotuner import statistics
from autotuner.monitor import torch as torch_door
from autotuner.monitor.team import Team
from autotuner.monitor.window import Window, run_block
from autotuner.plugins import Job, ProbeReader
from autotuner.types import Metrics

PAIRS = 8  # fixed before looking, for the interval
MIN_PAIRS = 5


def relieved_window(team: Team, job: Job, readers: Sequence[ProbeReader]) -> Window:
    """Interleave blocks as they are with blocks under relief of `job.relieves`, in the order ABBA.

    Returns:
        A window whose samples are those of the unrelieved blocks. Its telemetry adds `relieved_time_ratio` with
        `relieved_time_low_ratio` and `relieved_time_high_ratio`, the time of a relieved step relative to one as it is
        (geometric mean of pairs, Student's 95 % interval), `relief_left_ratio`, the demand that was left as the
        workload says, and `relief_left_flops_ratio` and `relief_left_bytes_ratio` as counted, where a step asks for
        any. Where the workload cannot be relieved of this resource, none of them.
    """
    window, log_ratios, lefts = Window(), list[float](), list[float]()
    for reader in readers:
        reader.read()
    begun_s = time.perf_counter()
    for number in range(PAIRS):
        seconds = {}
        for arm in (("plain", "relieved"), ("relieved", "plain"))[number % 2]:
            seconds[arm] = run_block(team, job, window) if arm == "plain" else _relieved_block(team, job, lefts)
        if not seconds["relieved"]:
            break
        log_ratios.append(math.log(seconds["relieved"] / seconds["plain"]))
        if number + 1 >= MIN_PAIRS and time.perf_counter() - begun_s > job.protocol.max_measure_s:
            break
    window.duration_s = time.perf_counter() - begun_s
    window.ended_by = "pairs"
    window.read(readers)
    if log_ratios:
        mean, low, high = map(math.exp, statistics.mean_interval(log_ratios))
        window.telemetry |= {
            "relieved_time_ratio": mean,
            "relieved_time_low_ratio": low,
            "relieved_time_high_ratio": high,
            "relief_left_ratio": max(lefts),
            **_counted(team, job),
        }
    return window


def _counted(team: Team, job: Job) -> Metrics:
    """What was really left of the demand: a relief may take away more than it is meant to, or less."""
    relief = team.relieve(job.relieves, job.config)
    if relief is None:
        return {}
    plain = _count(team, job)
    with relief:
        relieved = _count(team, job)
    shared = {"flops": "step_flops", "bytes": "step_bytes"}
    return {
        f"relief_left_{short}_ratio": relieved.get(name, 0.0) / plain[name]
        for short, name in shared.items()
        if plain.get(name, 0.0) > 0
    }


def _count(team: Team, job: Job) -> Metrics:
    return torch_door.explain_step(lambda: team.step(job.config), job.device)


def _relieved_block(team: Team, job: Job, lefts: list[float]) -> float:
    """Mean seconds of a step under relief, whose demand left is appended to `lefts`; 0 when there is no relief."""
    if (relief := team.relieve(job.relieves, job.config)) is None:
        return 0.0
    with relief as left:
        if left >= 1.0:
            return 0.0
        lefts.append(left)
        team.step(job.config)  # caches and pipelines settle under the relief
        torch_door.synchronise(job.device)
        return run_block(team, job, Window())
