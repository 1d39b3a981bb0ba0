"""Timed windows: blocks of steps, and what the probes saw meanwhile."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from autotuner import metrics, statistics
from autotuner.errors import AutotuneError
from autotuner.monitor import gpu, host
from autotuner.monitor import torch as torch_door
from autotuner.monitor.team import Team
from autotuner.plugins import Job, ProbeReader, Rival, Step

_FAR_BEHIND_RATIO = 0.9

logger = logging.getLogger(__name__)


class NotFiniteError(AutotuneError):
    """A workload computed NaN or infinity."""


@dataclass(slots=True)
class Window:
    """One timed window: raw samples by name, in order of time.

    Attributes:
        thread_s: CPU time of the stepping thread.
    """

    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    duration_s: float = 0.0
    thread_s: float = 0.0
    telemetry: dict[str, float] = field(default_factory=dict)
    contention: str = ""
    ended_by: str = ""

    def read(self, readers: Sequence[ProbeReader]) -> None:
        """Take what the probes saw since the window began, and say whether somebody disturbed it."""
        for reader in readers:
            self.telemetry.update(reader.read())
        if self.duration_s > 0:
            self.telemetry["main_thread_busy_ratio"] = self.thread_s / self.duration_s
        self.contention = host.contention(self.telemetry) or gpu.throttling(self.telemetry)


def best_window(team: Team, job: Job, readers: Sequence[ProbeReader]) -> Window:
    """Measure; a window that somebody else disturbed is taken again.

    When all are disturbed the fastest is kept, and marked: others on the machine only ever slow a step down.
    """
    windows: list[Window] = []
    for _ in range(1 + job.protocol.contended_retries):
        windows.append(_window(team, job, readers))
        if not windows[-1].contention:
            return windows[-1]
        logger.warning("contended: %s", windows[-1].contention)
    return min(windows, key=lambda window: metrics.median(window.samples["block_step_s"]))


def _window(team: Team, job: Job, readers: Sequence[ProbeReader]) -> Window:
    """Blocks until the interval is narrow, the noise has plateaued, or the time is up."""
    protocol, window = job.protocol, Window()
    for reader in readers:
        reader.read()
    half_widths: list[float] = []
    begun_s = time.perf_counter()
    while not window.ended_by:
        run_block(team, job, window)
        window.duration_s = time.perf_counter() - begun_s
        blocks = window.samples["block_step_s"]
        if window.duration_s >= protocol.max_measure_s:
            window.ended_by = "max_measure_s"
        elif len(blocks) >= protocol.min_blocks and window.duration_s >= protocol.min_measure_s:
            half_widths.append(_half_width_ratio(window))
            if half_widths[-1] <= protocol.precision_ratio:
                window.ended_by = "precision"
            elif job.rival and len(blocks) >= 2 * protocol.min_blocks and _is_far(window, job.rival):
                window.ended_by = "far behind the best so far"
            elif statistics.has_plateaued(half_widths):
                window.ended_by = "plateau"
    window.read(readers)
    return window


def _is_far(window: Window, rival: Rival) -> bool:
    """Whether even the upper end of its interval is far behind; what is nearer is worth its full precision.

    An interval of the fewest blocks is too often too narrow, so that twice as many are waited for.
    """
    rates, weights = window.samples.get(rival.metric, []), window.samples.get("block_s", [])
    if not rates:
        return False
    upper = metrics.value_of(rival.metric, window.samples) * (1 + statistics.half_width_ratio(rates, weights))
    return upper < _FAR_BEHIND_RATIO * rival.value


def _half_width_ratio(window: Window) -> float:
    if "block_s" in window.samples:
        return statistics.half_width_ratio(window.samples["throughput_steps_per_s"], window.samples["block_s"])
    return statistics.half_width_ratio(window.samples["block_step_s"])


def largest_steps(team: Team, job: Job, readers: Sequence[ProbeReader]) -> Window:
    """Nothing but the largest steps that there are: what counts is that they fit."""
    window = Window(ended_by="steps")
    for reader in readers:
        reader.read()
    begun_s = time.perf_counter()
    for _ in range(job.protocol.min_blocks):
        step_s = time.perf_counter()
        _collect(team.worst_step(job.config), defaultdict(float), window)
        torch_door.synchronise(job.device)
        window.samples["block_step_s"].append(time.perf_counter() - step_s)
    window.duration_s = time.perf_counter() - begun_s
    window.read(readers)
    return window


def run_block(team: Team, job: Job, window: Window) -> float:
    """The unit of evidence: whole cycles of steps for at least `block_s`, one synchronise at the end.

    Returns:
        Mean seconds of a step.
    """
    work: dict[str, float] = defaultdict(float)
    steps, cycle, spare_s = 0, team.cycle_steps(job.config), 0.0
    thread_s = time.thread_time()
    begun_s = now_s = time.perf_counter()
    while now_s - begun_s < job.protocol.block_s or steps % cycle:
        step = team.step(job.config)
        before_s, now_s = now_s, time.perf_counter()
        if "latency_s" not in step.samples:
            window.samples["latency_s"].append(now_s - before_s)
        if step.duration_s is not None:
            spare_s += now_s - before_s - step.duration_s
        steps += 1
        _collect(step, work, window)
    torch_door.synchronise(job.device)
    block_s = time.perf_counter() - begun_s - spare_s
    window.thread_s += time.thread_time() - thread_s
    window.samples["block_step_s"].append(block_s / steps)
    if team.uneven:
        window.samples["block_s"].append(block_s)
    window.samples["throughput_steps_per_s"].append(steps / block_s)
    for name, amount in work.items():
        window.samples[f"throughput_{name}_per_s"].append(amount / block_s)
    return block_s / steps


def _collect(step: Step, work: dict[str, float], window: Window) -> None:
    for name, amount in step.work.items():
        work[name] += amount
    for name, value in step.metrics.items():
        if not math.isfinite(value):
            raise NotFiniteError(f"{name} is {value}")
        window.samples[name].append(value)
    for name, values in step.samples.items():
        if any(map(math.isnan, values)):
            raise NotFiniteError(f"{name} is not a number")
        window.samples[name].extend(values)
