"""A study of one parameter, `mode`, whose speeds on the simulated machine are known."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from simulated_machine import NOISES, Simulated, SimulatedPool, make_job

from autotuner.executors.inline import InlineExecutor
from autotuner.spec.expressions import Limit
from autotuner.spec.model import Objective, StudySpec
from autotuner.spec.parameters import Parameter
from autotuner.types import Diagnosis, Measurement, Origin, Trial, Verdict

RATE, MEMORY = "throughput_tokens_per_s", "peak_memory_bytes"
SPEED = {"a": 100.0, "b": 150.0, "c": 149.0, "d": 130.0}


def study(limits=(), **options):
    modes = Parameter(choices=tuple(SPEED), default="a")
    return StudySpec(
        name="verification", workload=Simulated(kind="simulated"), executor=InlineExecutor(),
        parameters={"mode": modes}, objectives=(Objective(maximize=RATE),), limits=tuple(map(Limit.parse, limits)),
        **options,
    )  # fmt: skip


@dataclass
class Windows:
    """As much of `Jobs` as a verification without an outputs guard needs."""

    reference_path: Path | None = None

    def window(self, config, launch, exclusive):
        return make_job(config, launch, exclusive)


def trial(number, mode, contended=False):
    measured = Measurement({RATE: (SPEED[mode],)}, 1, 1, 1, {}, {}, datetime.now(UTC), contended)
    origin = Origin.BASELINE if mode == "a" else Origin.SAMPLER
    verdict = Verdict({RATE: SPEED[mode]}, {}, Diagnosis("unknown"), 0.02)
    return Trial(number, {"mode": mode}, origin, measured, verdict)


TRIALS = [trial(number, mode) for number, mode in enumerate(SPEED)]


def machine(truth=None, sd=0.002, **options):
    return SimulatedPool(truth or (lambda c: {RATE: SPEED[c["mode"]]}), NOISES["independent"](Random(3), sd), **options)
