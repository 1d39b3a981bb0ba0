"""A simulated machine: a worker pool whose truth is known and whose noise is chosen. Nothing is really measured.

The noise has time on its axis: every window of every process takes the next value of one series, as on a machine
whose clocks and neighbours do not care whose turn it is.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Literal

from autotuner.plugins import Job, OpenWorkload, Workload
from autotuner.types import Config, Failure, Measurement, MeasurementProtocol, Outcome

Noise = Callable[[Random, float], Iterator[float]]


def independent(rng: Random, sd: float) -> Iterator[float]:
    """Gaussian log factors without memory."""
    while True:
        yield rng.gauss(0.0, sd)


def autocorrelated(correlation: float) -> Noise:
    """A stationary first-order autoregression with this correlation from window to window."""

    def noise(rng: Random, sd: float) -> Iterator[float]:
        state = rng.gauss(0.0, sd)
        while True:
            yield state
            state = correlation * state + math.sqrt(1 - correlation**2) * rng.gauss(0.0, sd)

    return noise


def drifting(rng: Random, sd: float) -> Iterator[float]:
    """A quarter of a percent a window for 60 windows, up or down, and a slow wave of 3 % over 40 windows."""
    slope, phase = rng.choice((-1, 1)) * 0.0025, rng.uniform(0, 2 * math.pi)
    for place in count():
        yield slope * min(place, 60) + 0.03 * math.sin(2 * math.pi * place / 40 + phase) + rng.gauss(0.0, sd)


def spiking(rng: Random, sd: float) -> Iterator[float]:
    """5 % of the windows run 1.5 to 3 times slower."""
    while True:
        spike = math.log(rng.uniform(1.5, 3.0)) if rng.random() < 0.05 else 0.0
        yield rng.gauss(0.0, sd) - spike


NOISES: Mapping[str, Noise] = {
    "independent": independent,
    "autocorrelated 0.5": autocorrelated(0.5),
    "autocorrelated 0.9": autocorrelated(0.9),
    "drifting": drifting,
    "spiking": spiking,
}


class Simulated(Workload):
    """Stands where a workload must stand; never opened."""

    kind: Literal["simulated"] = "simulated"

    def open(self, config: Config, device: str) -> OpenWorkload:  # type: ignore[override]
        """Refuse: the pool answers by itself."""
        raise NotImplementedError


def make_job(config: Config, launch: str, exclusive: bool) -> Job:
    """The job of one simulated window."""
    return Job(Simulated(kind="simulated"), config, MeasurementProtocol(), launch=launch, exclusive=exclusive)


@dataclass(slots=True)
class SimulatedPool:
    """A simulation of a `WorkerPool`, answering at once.

    Attributes:
        truth: Noise-free samples of a configuration, each a single value.
        noisy: Names of the samples that carry noise; a slowdown divides rates and multiplies times.
        noise: Log factors in order of time.
        rng: For the launch effects.
        launch_sd: Standard deviation of a process's own log factor.
        fault: Why a job fails, given the launches that stand open; None when it does not.
        setup_s: Simulated time to open, in seconds; a window takes 1 s.
        contended: Whether the machine is said to be busy during a window, by number.
        jobs: Everything that was submitted.
        standing: Launches that stand open, with their log factor.
        most_standing: Most launches that ever stood open together.
        clock_s: Simulated time.
    """

    truth: Callable[[Config], Mapping[str, float]]
    noise: Iterator[float]
    rng: Random = field(default_factory=lambda: Random(0))
    noisy: Mapping[str, int] = field(default_factory=lambda: {"throughput_tokens_per_s": 1, "latency_s": -1})
    launch_sd: float = 0.0
    fault: Callable[[Job, Mapping[str, float]], Failure | None] = lambda job, standing: None
    setup_s: float = 1.0
    contended: Callable[[int], bool] = lambda number: False
    jobs: list[Job] = field(default_factory=list)
    standing: dict[str, float] = field(default_factory=dict)
    most_standing: int = 0
    clock_s: float = 0.0
    slots: int = 1

    def submit(self, job: Job) -> "Future[Outcome]":
        """Answer at once."""
        self.jobs.append(job)
        if job.exclusive:
            for other in [name for name in self.standing if name != job.launch]:
                self.close(other)
        reused = job.launch in self.standing
        if not reused:
            self.standing[job.launch] = self.rng.gauss(0.0, self.launch_sd)
        self.most_standing = max(self.most_standing, len(self.standing))
        failure = self.fault(job, self.standing)
        if failure:
            self.close(job.launch)
        done: Future[Outcome] = Future()
        done.set_result(failure or self._measure(job, reused))
        return done

    def close(self, launch: str) -> None:
        """End a launch."""
        self.standing.pop(launch, None)

    def _measure(self, job: Job, reused: bool) -> Measurement:
        setup_s = 0.0 if reused else self.setup_s
        duration_s = min(1.0, job.protocol.max_measure_s)
        self.clock_s += setup_s + duration_s
        factor = math.exp(next(self.noise) + self.standing[job.launch])
        samples = {name: (value * factor ** self.noisy.get(name, 0),) for name, value in self.truth(job.config).items()}
        return Measurement(
            samples={**samples, "setup_s": (setup_s,)},
            setup_s=setup_s,
            warmup_s=0.0,
            duration_s=duration_s,
            telemetry={},
            environment={},
            started_at=datetime.now(UTC),
            contended=self.contended(len(self.jobs)),
            reused=reused,
        )
