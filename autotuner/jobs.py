"""Turns what the study wants to know into jobs for a worker: a trial of the search, or a window of a comparison."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from autotuner import telemetry
from autotuner.plugins import Job, Rival
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Config, Trial

MIN_WINDOW_BLOCKS = 6  # ten pairs then hold the 59 requests that a p95 needs, however long a step is
PROOF_STEPS = 10  # on the largest input, after a warm-up that has the optimizer's states in place
SEARCH = "search"  # the launch that search trials share


@dataclass(frozen=True)
class Jobs:
    """Makes the jobs of one study; `folder` is where its logs and reference outputs lie."""

    spec: StudySpec
    folder: Path

    @cached_property
    def reference_path(self) -> Path | None:
        """The baseline's outputs; None when the study does not guard outputs."""
        return self.folder / "reference.npz" if self.spec.equivalence.guard else None

    def trial(self, number: int, config: Config, best: Trial | None = None) -> Job:
        """A search trial; number 0 is the baseline and leaves the reference outputs. `best` is the one to beat."""
        job = self._job(config, SEARCH, f"trial-{number:05d}.log")
        return replace(job, writes_reference=number == 0, counts=self.spec.workload.countable, rival=self._rival(best))

    def _rival(self, best: Trial | None) -> Rival | None:
        """Only of a rate of work can be told block by block how far behind it is."""
        metric = self.spec.objective.metric
        value = best.verdict.objectives.get(metric, math.nan) if best and best.verdict else math.nan
        return Rival(metric, value) if metric.startswith("throughput_") and value > 0 else None

    def probe(self, number: int, config: Config, resource: Binding) -> Job:
        """A look at what relief of a resource does to a trial that has just been measured."""
        job = self._job(config, SEARCH, f"trial-{number:05d}-{resource.value}.log")
        return replace(job, relieves=resource.value, reference_path=None)

    def window(self, config: Config, launch: str, exclusive: bool) -> Job:
        """One window of an interleaved comparison: a fixed amount of evidence, whatever its noise.

        The first window of a launch opens and warms up; the next ones find the workload warm.
        """
        job = self._job(config, launch, f"{launch}.log")
        blocks = max(MIN_WINDOW_BLOCKS, job.protocol.min_blocks)
        protocol = replace(job.protocol, min_blocks=blocks, precision_ratio=math.inf, contended_retries=0)
        return replace(job, protocol=protocol, exclusive=exclusive)

    def proof(self, config: Config) -> Job:
        """Nothing but the largest inputs, in a fresh process with nobody beside it."""
        job = self._job(config, "proof", "proof.log")
        protocol = replace(job.protocol, min_blocks=PROOF_STEPS)
        return replace(job, protocol=protocol, exclusive=True, proves_memory=True, reference_path=None)

    def reference(self, config: Config) -> Job:
        """The baseline once more, to write reference outputs that are not there any more."""
        return replace(self.window(config, "reference", exclusive=True), writes_reference=True)

    def _live(self, config: Config) -> frozenset[str]:
        """What a worker can take over without reopening; nothing when the time to open is what counts."""
        metrics = {*self.spec.objective.metrics, *(limit.metric for limit in self.spec.limits)}
        if "setup_s" in metrics:
            return frozenset()
        live = frozenset(name for name in self.spec.parameters if self.spec.trait(name).live)
        return live - self.spec.workload.fixed(config)

    def _job(self, config: Config, launch: str, log_name: str) -> Job:
        return Job(
            workload=self.spec.workload,
            config=config,
            protocol=self.spec.protocol,
            probes=self.spec.probes,
            device=self.spec.device,
            launch=launch,
            live=self._live(config),
            log_path=self.folder / "logs" / log_name,
            reference_path=self.reference_path,
            trace_parent=telemetry.trace_parent(),
        )
