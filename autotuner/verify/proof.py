"""The memory proof: a configuration that is named must fit with the largest input that there is, not only the usual."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from autotuner.jobs import PROOF_STEPS, Jobs
from autotuner.metrics import format_value, value_of
from autotuner.plugins import WorkerPool
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Failure, Metrics, Trial, config_key

_MEMORY = "peak_memory_bytes"


@dataclass(frozen=True, slots=True)
class MemoryProof:
    """What came of the largest steps, in a fresh process with nobody beside it.

    Attributes:
        refusal: Why the configuration must not be named; empty when it fits.
        worst_case: `peak_memory_bytes` and `steps`; empty when it did not fit, or there is nothing to prove.
    """

    refusal: str = ""
    worst_case: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proofs:
    """Memory proofs of one verification, each made once."""

    spec: StudySpec
    pool: WorkerPool
    jobs: Jobs
    made: dict[str, MemoryProof] = field(default_factory=dict)

    def of(self, config: Config) -> MemoryProof:
        """The proof of a configuration."""
        key = config_key(config)
        if key not in self.made:
            self.made[key] = prove_memory(self.spec, self.pool, self.jobs, config)
        return self.made[key]

    def fitting(self, pick: Callable[[Collection[str]], list[Trial]], deadline: Callable[[], float]) -> list[Trial]:
        """Candidates that fit: where the fastest are the largest, many may be at the edge, and others take their place.

        Args:
            pick: Keys of what does not fit -> the candidates without it.
            deadline: Seconds left; candidates beyond it are not proven yet.
        """
        while True:
            found = pick({key for key, proof in self.made.items() if proof.refusal})
            unproven = [trial for trial in found if config_key(trial.config) not in self.made]
            if not unproven or deadline() <= 0:
                return found
            self.of(unproven[0].config)


def prove_memory(spec: StudySpec, pool: WorkerPool, jobs: Jobs, config: Config) -> MemoryProof:
    """Run a configuration on nothing but the largest inputs, the optimizer's states in place.

    Args:
        spec: The study.
        pool: Where it runs.
        jobs: Makes the job.
        config: What is to be named.
    """
    if not spec.workload.sized:
        return MemoryProof()
    outcome = pool.submit(jobs.proof(config)).result()
    pool.close("proof")
    if isinstance(outcome, Failure):
        return MemoryProof(f"with the largest inputs it failed: {outcome.kind}: {outcome.message}")
    peak_bytes = value_of(_MEMORY, outcome.samples)
    for limit in spec.limits:  # one in terms of the baseline is judged side by side
        if limit.is_memory_cap and limit.excess(peak_bytes, None) > 0:
            needed = format_value(_MEMORY, peak_bytes)
            return MemoryProof(f"with the largest inputs it needs {needed}, which breaks {limit.text}")
    return MemoryProof(worst_case={_MEMORY: peak_bytes, "steps": float(PROOF_STEPS)})
